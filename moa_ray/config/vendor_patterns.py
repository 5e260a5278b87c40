"""Ready patterns of file names: what the programs of the microscopes write, in the language of `FilePattern`.

Several stand for one program: the plate is a folder above or the head of a name, planes and times are told or not. Of
each path the first that matches is meant, so what says more comes first. Thumbnails match none.

Sources: Harmony's Index.idx.xml folders (Opera Phenix, Operetta), Yokogawa's MeasurementData.mlf, MetaXpress' and IN
Cell's exports, Micro-Manager's separate image files, as published screens have them.
"""

from itertools import product

_TIFF = ".{:tiff?}"

# r, c, f, p: row, column, field, plane; ch, sk, fk, fl: channel, time, state, FLIM. Where there is rc, as the first
# Operettas wrote it, that is the channel, and ch is always 1.
_HARMONY = [
    f"{folder}{name}{_TIFF}"
    for folder, name in product(
        ["{plate}__*/Images/", "{plate}/Images/", "Images/", "{plate}/", ""],
        [
            "r{row}c{col}f{field}p{z}-ch{channel:[0-9]+}sk{t}fk{:[0-9]+}fl{:[0-9]+}",
            "r{row}c{col}f{field}p{z}rc{channel:[0-9]+}-ch1sk{t}fk{:[0-9]+}fl{:[0-9]+}",
            "r{row}c{col}f{field}p{z}-ch{channel:[0-9]+}t{t}",
        ],
    )
]

_YOKOGAWA = ["{plate}_{well}_T{t}F{field}L{:[0-9]+}A{:[0-9]+}Z{z}C{channel:[0-9]+}.{:tiff?|png}"]

_GUID = "{:[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+-[0-9a-f]+}"
_META_XPRESS = [
    f"{{plate}}_t{{t}}_{{well}}_s{{field}}_w{{channel:[0-9]+}}_z{{z}}{_TIFF}",
    *(
        f"{above}{site}{channel}{_TIFF}"
        for site, above, channel in product(
            ["_s{field:[0-9]+}", ""],
            [
                "{plate}/TimePoint_{t}/ZStep_{z}/{:([^/]*_)?}{well}",
                "TimePoint_{t}/ZStep_{z}/{:([^/]*_)?}{well}",
                "{plate}/TimePoint_{t}/{:([^/]*_)?}{well}",
                "TimePoint_{t}/{:([^/]*_)?}{well}",
                "{plate}_{well}",
                "{plate}/{well}",
                "{well}",
            ],
            [f"_w{{channel:[0-9]}}{_GUID}", "_w{channel:[0-9]+}_z{z}", "_w{channel:[0-9]+}"],
        )
    ),
]

# The position is that of the well where a folder tells it, else its number stands for the field.
_MICRO_MANAGER = [
    f"{folder}{default}{name}{_TIFF}"
    for folders, position in [
        (["{plate}/{well}-{:(Site_)?}{field:[0-9]+}/", "{well}-{:(Site_)?}{field:[0-9]+}/"], "{:[0-9]+}"),
        (["{plate}/{well}/", "{well}/"], "{field:[0-9]+}"),
    ]
    for folder, default in product(folders, ["", "Default/"])
    for name in [
        f"img_channel{{channel:[0-9]+}}_position{position}_time{{t}}_z{{z}}",
        "img_{t}_{channel}_{z}",
    ]
]

_IN_CELL = [
    f"{plate}{{row}} - {{col}}({image}){_TIFF}"
    for plate, image in product(
        ["{plate}_", "{plate}/", ""],
        [
            "fld {field} wv {channel} - time {t} - {:[0-9]+} ms",
            "fld {field} wv {channel} z {z}",
            "fld {field} z {z} wv {channel}",
            "fld {field} wv {channel}",
            "wv {channel}",
        ],
    )
]

PATTERNS = {
    "opera_phenix": _HARMONY,
    "operetta": _HARMONY,
    "cv8000": _YOKOGAWA,
    "imagexpress": _META_XPRESS,
    "micromanager": _MICRO_MANAGER,
    "in_cell": _IN_CELL,
}
