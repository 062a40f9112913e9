"""Bugs seeded into SGLang on purpose: would the fuzzer see them, and say what they are?"""
