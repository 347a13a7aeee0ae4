"""Archives that somebody else made, taken apart: hostile until proven otherwise.

``formats`` tells what a file is and which program reads it; ``rules`` says what an entry may be; ``tree`` turns entries
into files; ``process`` is the confined process in which both the program and the tree's maker run; ``unpacking`` starts
them, measures what flows between them, and is the only part of it that runs as the host's root.
"""
