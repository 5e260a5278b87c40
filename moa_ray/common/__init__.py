"""What every wing uses: names of columns, errors, files, places, text."""
