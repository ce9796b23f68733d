"""Answering a question over a folder of documents: the parts that know nothing of the runtime.

Each is a plain function over files or values.

corpus     find the files, read one file into passages (the effect of one durable step)
passages   how text, Markdown, HTML and Python are split
index      which passages speak to a question
answer     a report whose every statement is a verbatim quotation; the contract of a composer
model      a composer that asks an OpenAI-compatible model
check      reread a cited file from disk and see whether the quotation stands there
questions  twenty questions whose right file is known, and the score on them
"""
