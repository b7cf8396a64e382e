"""State dicts that other programs wrote: their keys and shapes tell which model they are.

A state dict holds weights alone. What a network does without weights (an activation, a sum, a start from ones)
leaves no key in it, so compare the loaded model with the network once. What keys and shapes leave open is never
guessed: it is refused, with the hint that settles it.
"""

from arraylstm.foreign.contents import check_tensors as check_tensors
from arraylstm.foreign.described import Described as Described
from arraylstm.foreign.described import Hints as Hints
from arraylstm.foreign.described import Weights as Weights
from arraylstm.foreign.described import some as some
from arraylstm.foreign.registry import describe as describe
