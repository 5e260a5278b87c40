"""The sweep file and the settings that it holds, checked where they are read."""
