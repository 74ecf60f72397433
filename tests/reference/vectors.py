"""Numbers that follow from the published programs by arithmetic, for long prompts."""

# (budget with window, window, layers): base of the first and the last layer, and by how much of
# the exact total PyramidKV's whole steps keep too much, in percent.
PYRAMID_STEPS = {
    (128, 8, 32): (234, 17, 4.6),
    (64, 8, 32): (110, 17, 13.4),
    (96, 32, 28): (125, 17, 10.9),
    (64, 32, 28): (63, 9, 12.5),
    (128, 32, 28): (188, 26, 11.5),
    (256, 32, 28): (437, 32, 4.7),
    (64, 32, 32): (63, 1, 0.0),
    (128, 32, 32): (188, 33, 15.1),
    (256, 32, 32): (437, 34, 5.1),
}
