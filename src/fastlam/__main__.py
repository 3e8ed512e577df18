"""`python -m fastlam` is the fastlam command."""

from fastlam.cli import main

if __name__ == "__main__":
    main()
