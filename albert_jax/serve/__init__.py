"""The small local web page: what models say (answers.py), over HTTP (server.py), to page.html."""
