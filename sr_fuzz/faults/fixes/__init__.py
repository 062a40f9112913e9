"""Fixes, the opposite of faults: each one patches SGLang so that one known bug is gone, and changes nothing else.

A fix proves the cause of a bug: the bug's own test passes with it (tests/faults/test_fixes.py). It also tells whether a
new finding is another face of a known bug: if a script shows no violation once a fix is triggered in it, it shows that
bug. The file of a known bug names its fixes in ``fixes``; a test of your own names them in ``FIXED_BY``, a path such as
``sr_fuzz.faults.fixes.sessions:refused_turn`` or a tuple of several. A fix is declared like a fault, with the name of
its function; it calls ``triggered`` when it has an effect.
"""
