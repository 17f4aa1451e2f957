"""Continue a text with a model file: python examples/write.py bard.tflite "ROMEO:" """

import sys

from charedge import CharedgeError, load

model, prompt = sys.argv[1:]
try:
    generator = load(model)
    print(prompt, end="")
    for piece in generator.stream(prompt, length=300, temperature=0.8):
        print(piece, end="", flush=True)
    print()
except CharedgeError as error:
    sys.exit(f"{error}")
