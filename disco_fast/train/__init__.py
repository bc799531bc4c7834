"""Training as in sections 4.4 and 5.1 of the paper; needs the extra ``train``.

`stream.py` brings photographs, `losses.py` has the equations, `stages.py` says what each of the two
stages computes, `trainer.py` repeats that, and `command.py` is ``disco-fast train``.
"""
