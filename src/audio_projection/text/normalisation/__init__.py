"""English as it is said: numbers, dates, times, money, units, signs and abbreviations in words.

    spell_out("Dr. Lee paid $3.50 on May 3rd, 2021.")
    # Doctor Lee paid three dollars and fifty cents on May third, twenty twenty one.

One pass over the original text: each rule of a table (rules.py), by priority, takes what it matches of that which no
rule before it has taken. So no rule ever sees what another one wrote. The rules only find things and take them apart,
the number words are num2words's. Where a figure can be read in two ways the commoner one is taken: 1100 to 2099 are
years, 5/3/2021 has the month first, and long or zero-led figures are read digit by digit (docs/text.md has the list).
"""

from audio_projection.text.normalisation.rules import READING, SPELLING, spell_out

__all__ = ["READING", "SPELLING", "spell_out"]
