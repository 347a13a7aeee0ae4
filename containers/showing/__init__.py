"""What people and programs are shown: words, rows, forms and JSON."""
