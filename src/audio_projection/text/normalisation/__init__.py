"""English as it is said: numbers, dates, times, money, units, signs and abbreviations in words.

    spell_out("Dr. Lee paid $3.50 on May 3rd, 2021.")
    # Doctor Lee paid three dollars and fifty cents on May third, twenty twenty one.

A list of rules, one for each kind of thing, is gone through until nothing changes; a rule sees what those before it
left. The rules only find things and take them apart, the number words are num2words's. What they write are words
without hyphens, and no rule matches what any rule has written alone. Where a figure can be read in two ways the
commoner one is taken: 1100 to 2099 are years, 5/3/2021 has the month first, and long or zero-led figures are read
digit by digit.
"""

from audio_projection.text.normalisation.rules import spell_out

__all__ = ["spell_out"]
