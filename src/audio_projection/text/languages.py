"""Whether a text is in a language that the English rules do not speak."""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_MOST = 400  # words that are looked at
_FEWEST = 4
_COMMON = {
    "English": "the a an and of to in is it you that he was for on are with as his they at be this have from or had by "
    "not but what all were we when your can said there use each which she do how their if will up about out many then "
    "them these so some her would make like him into time has look two more go see no way could my than been who its "
    "now did get come made may over new take only know me give our under very after just where most don't it's",
    "German": "der die das und ist ich nicht ein eine zu den mit sich auf für von dem des im es wir sie er auch als an "
    "werden aus hat dass oder wie bei noch nach wird sind einen einem einer war haben kann aber wenn nur über",
    "French": "le la les de des du un une et est je ne pas que qui dans en pour sur au avec il elle nous vous ce cette "
    "se plus par mais ou où son sa ses sont été être ont c'est d'un d'une leur comme tout",
    "Spanish": "el la los las de que en un una es no se por con para su al lo como más pero sus le ya o este sí porque "
    "esta entre cuando muy sin sobre también hasta hay donde quien desde todo nos está son",
    "Italian": "il lo la gli le di che un una non per con del della si da sono nel anche ma come più ho ha questo "
    "questa alla dei delle nella se loro essere io cosa tutto mi ci",
    "Portuguese": "o os as de que do da em um uma não para com se na por mais como mas foi ao ele das tem à seu sua "
    "ou quando muito nos já está eu também só pelo pela até isso ela entre",
    "Dutch": "de het een en van ik te dat die in je niet zijn is was op aan met als voor had er maar om hem dan zou of "
    "wat mijn dit zo door over ze zich bij ook tot uit der daar haar naar heb hoe heeft",
    "Polish": "nie na się że do jest jak ale po od tak czy już przez dla był tym są ma",
    "Swedish": "och att det en är som på de av för med den till inte har om ett men jag så var kan från vi",
    "Turkish": "ve bir bu da de için ile çok daha ne gibi kadar ben sen o biz değil mi var ama en her",
}
_SETS = {language: frozenset(words.split()) for language, words in _COMMON.items()}


def foreign_language(text: str) -> str | None:
    """The language or script of a text that is not English; None for English, and for what is too short to tell."""
    words = [word.lower().replace("’", "'") for word in _WORD.findall(text[:8000])[:_MOST]]
    letters = [letter for word in words for letter in word]
    others = [letter for letter in letters if letter > "\u02ff" and "LATIN" not in unicodedata.name(letter, "LATIN")]
    if letters and 2 * len(others) > len(letters):
        return unicodedata.name(others[0]).split()[0].capitalize()
    if len(words) < _FEWEST:
        return None
    shares = {language: sum(word in common for word in words) for language, common in _SETS.items()}
    likely = max(shares, key=lambda language: (shares[language], language == "English"))
    certain = shares[likely] > 1.5 * shares["English"] and shares[likely] >= max(3, len(words) / 5)
    return likely if likely != "English" and certain else None
