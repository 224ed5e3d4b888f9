# Takes the lists of close approaches out of a page, without the GIL. None if a list deviates from the layout. The lists
# that it takes are valid JSON, and ASCII. The rest of the page is not checked.
#
# It returns, as bytes:
#   1. the rest of the page, with each list's number in its place, from 0
#   2. the number of approaches in each list (int32)
#   3. the day of each approach, since 1970-01-01 (int32)
#   4. the epoch of each approach in ms (int64)
#   5. the offsets of the orbiting bodies (int32, the first is 0), and 6. their text
#   7. the offsets (as above), and 8. the text, of all miss distances in au, then all in km, then all velocities in
#      km/s; the text has only characters of numbers
# Integers have the machine's byte order.
def cut(body: bytes, /) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes] | None: ...
