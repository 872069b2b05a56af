"""`python -m octet`, the same as the command `octet`."""

from octet.cli import main

if __name__ == "__main__":  # the service's workers import this module too
    main()
