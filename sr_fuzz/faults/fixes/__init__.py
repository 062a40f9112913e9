"""Fixes: the opposite of faults. Each patches SGLang so that one known bug is gone, and touches nothing else.

A fix proves a cause: the bug's own test passes with it (tests/faults/test_fixes.py). And it tells whether a new finding
is another face of a known bug: a script that breaks nothing once a fix has acted in it shows that bug. The file of a
known bug names what fixes it in ``fixes``; a test of your own does in ``FIXED_BY``, a path such as
``sr_fuzz.faults.fixes.sessions:refused_turn`` or a tuple of several. A fix is declared like a fault, with the name of
its function; its ``triggered`` says that it acted.
"""
