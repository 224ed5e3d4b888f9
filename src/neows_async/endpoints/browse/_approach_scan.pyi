# Takes the lists of approaches out of a page, without the GIL; None if one is not written as they always are. The lists
# that it takes are JSON, and ASCII; about the rest it says nothing.
#
# It returns what is left of the page, with each list's number in its place, from 0; how many approaches each list has
# (int32); then of each approach the day since 1970-01-01 (int32), the epoch in ms (int64), the orbiting body (where
# each ends, int32, after a 0; and all their text). Last come, in the same way, the texts of all miss distances in au,
# of all in km and of all velocities in km/s, of the characters that numbers are made of. Integers are in the machine's
# order.
def cut(body: bytes, /) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes] | None: ...
