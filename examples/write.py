"""Continue a text with a model file: python examples/write.py bard.tflite "ROMEO:" """

import sys

import charedge

if len(sys.argv) != 3:
    sys.exit(__doc__)
path, prompt = sys.argv[1:]
try:
    model = charedge.load(path)
    print(prompt, end="")
    for piece in model.stream(prompt, length=300, temperature=0.8):
        print(piece, end="", flush=True)
    print()
except (charedge.CharedgeError, OSError) as error:
    sys.exit(str(error))
except KeyboardInterrupt:
    sys.exit(130)
