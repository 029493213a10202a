"""The sentences of messages that all exercises share, in each language."""

from gradlab.exercises.exercise import Words

RIGHT: Words = {
    "en": "{name}: right in all {count} cases.",
    "es": "{name}: correcto en los {count} casos.",
}
NOT_YET: Words = {"en": "{name}: not yet. ", "es": "{name}: todavía no. "}
UNWRITTEN: Words = {
    "en": "The function is not written yet.",
    "es": "La función aún no está escrita.",
}
NOTHING: Words = {
    "en": "The function returned None. It must return {returns}.",
    "es": "La función devolvió None. Debe devolver {returns}.",
}
ARGUMENTS: Words = {
    "en": "It must take {count} arguments, in this order: {call}.",
    "es": "Debe recibir {count} argumentos, en este orden: {call}.",
}
RAISED: Words = {
    "en": "With {case}, it raised {error}{line}: {text}",
    "es": "Con {case}, la función lanzó {error}{line}: {text}",
}
LINE: Words = {"en": " in line {number}{code}", "es": " en la línea {number}{code}"}
NOT_NUMBERS: Words = {
    "en": "{name} returned {got}. It must return {returns}.",
    "es": "{name} devolvió {got}. Debe devolver {returns}.",
}
UNREADABLE: Words = {
    "en": "{name} returned {got} that NumPy cannot read: {text}",
    "es": "{name} devolvió {got} que NumPy no puede leer: {text}",
}
INTERRUPTED: Words = {
    "en": "With {case}, the function had not ended when it was interrupted.",
    "es": "Con {case}, la función no había terminado cuando se la interrumpió.",
}
SHAPE: Words = {
    "en": "With {case}, {name} returned {got}. It must return {returns}; here {wanted}.",
    "es": "Con {case}, {name} devolvió {got}. Debe devolver {returns}; aquí, {wanted}.",
}
NOT_FINITE: Words = {
    "en": "With {case}, the result has entries that are not finite (NaN or infinity){where}.",
    "es": "Con {case}, el resultado tiene valores que no son finitos (NaN o infinito){where}.",
}
CHANGED: Words = {
    "en": "With {case}, the function changed its argument {argument}. It must leave it as it is: "
    "compute with a copy.",
    "es": "Con {case}, la función modificó su argumento {argument}. Debe dejarlo como está: hay "
    "que calcular con una copia.",
}
DIFFERS: Words = {
    "en": "With {case}, the result differs.",
    "es": "Con {case}, el resultado difiere.",
}
SOME_DIFFER: Words = {
    "en": "With {case}. Right: {right}. Different: {wrong}.",
    "es": "Con {case}. Correcto: {right}. Difiere: {wrong}.",
}
ALL_DIFFER: Words = {
    "en": "With {case}, all parts differ: {wrong}.",
    "es": "Con {case}, todas las partes difieren: {wrong}.",
}
VALUES: Words = {
    "en": "{where}: yours is {yours}, ours {ours}.",
    "es": "{where}: la función da {yours}; lo correcto es {ours}.",
}
AT: Words = {"en": " at [{entry}]", "es": " en [{entry}]"}
VALUE: Words = {"en": "The result", "es": "El resultado"}
PROBABLY: Words = {"en": "Probable mistake: {mistake}", "es": "Error probable: {mistake}"}
SIGN: Words = {"en": "the sign is the opposite.", "es": "el signo es el contrario."}
FACTOR: Words = {
    "en": "the entries that differ are {factor} times ours.",
    "es": "los valores que difieren son {factor} veces los nuestros.",
}
TRANSPOSED: Words = {
    "en": "right up to a transpose: rows and columns are exchanged.",
    "es": "correcto salvo una transposición: filas y columnas están intercambiadas.",
}
SHIFTED: Words = {
    "en": "shifted by one step: at the place of {place} stands our {other}.",
    "es": "desplazado un paso: en el lugar de {place} está nuestro {other}.",
}
REVERSED: Words = {
    "en": "the order is reversed: {last} stands first.",
    "es": "el orden está invertido: {last} está en primer lugar.",
}
ARRAY: Words = {"en": "an array of shape {shape}", "es": "un arreglo de forma {shape}"}
NUMBER: Words = {"en": "one number", "es": "un número"}
SEQUENCE: Words = {"en": "a sequence of {items}", "es": "una secuencia de {items}"}
AN_ARRAY_OF: Words = {
    "en": "an array of {dtype}, not of float64, float32 or int",
    "es": "un arreglo de {dtype}, no de float64, float32 o int",
}
VALUE_OF_TYPE: Words = {"en": "a value of type {type}", "es": "un valor de tipo {type}"}
LIST: Words = {
    "en": 'The exercises. gradlab.check("bptt") shows one of them, gradlab.check("bptt", bptt) '
    "checks a function.",
    "es": 'Los ejercicios. gradlab.check("bptt", language="es") muestra uno de ellos; '
    'gradlab.check("bptt", bptt, language="es") comprueba una función.',
}
QUESTION: Words = {
    "en": "{call}: {idea}\n{question}\nArguments: {takes}\nReturns: {returns}.\n"
    'Check: gradlab.check("{name}", {name})',
    "es": "{call}: {idea}\n{question}\nArgumentos: {takes}\nDevuelve: {returns}.\n"
    'Comprobación: gradlab.check("{name}", {name}, language="es")',
}
