"""A procedural world of short videos with known truth: what is shown, what is said, and what can be asked.

`scene` says what happens, `language` puts it into words, `render` into pictures, `files` onto disk.
"""
