"""The kinds of frames (frames.py), by themselves: the command line starts without the rest."""

STDIN, STDOUT, STDERR, END, RESIZE, SIGNAL, RESULT, ERROR, DETACH = range(9)
