"""Bugs seeded into SGLang on purpose: does the fuzzer find them, and does it say what they are?"""
