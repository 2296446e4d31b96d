"""Raw dumps into data sets: a recipe for each, over steps that they share.

`recipes` reads as the rules of each data set; `table`, `archive` and `read` bring a raw file in, `steps` and `split`
are the rules, `write` puts the result down. All of it needs polars, so nothing here is imported but by the command.
"""
