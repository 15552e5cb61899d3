if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import sys

from convert.cli import main

if __name__ == "__main__":
    sys.exit(main())
