"""``python -m mmrkd``: the command of the same name."""

from mmrkd.commands import main

if __name__ == '__main__':
    main()
