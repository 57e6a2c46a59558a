"""Stage 0: a text of everyday English sentences, for those who have no text of their own.

    python recipes/nano/prompts.py prompts.txt --sentences 100000 --wordnet

A sentence a line, none twice, the same file for the same seed.  The sentences are drawn from the grammar
below, which is part of this project.  `--wordnet` puts the 41,000 examples of WordNet's dictionary before
them (Debian: `apt-get install wordnet-base`; WordNet's own licence, free for any use): real phrases with a
vocabulary that no small grammar has.
"""

import argparse
import os
import random
import re
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
RUDE = re.compile(r"slur|obscen|offensive|vulgar|disparag|derogat")

# Symbol: alternatives, split at `|`.  The first letter of a sentence becomes a capital, `a` becomes `an` by itself.
GRAMMAR = {
    "sentence": (
        "{past}.|{past}.|{past}.|{past} {when}.|{past} {when}.|{when}, {past}.|{past}, and {past}.|{past}, but {past}."
        "|{past} because {past}.|{past} before {past}.|after {past}, {past}.|when {past}, {past}.|{past} while {going}."
        "|{state}.|{state} {when}.|{state}, so {past}.|{state}, but {past}.|{present}.|{present}."
        "|{present}, but {state}.|{question}?|{question}?|{question}?|{order}.|{order}.|{order}, please."
        "|please {order}.|{talk}|{talk}|{future}.|{future}.|{future} if {present}.|there {is} {where}."
        "|there {was} {where} {when}.|{wish}.|{number} {plural} {lay} {where}.|{number} {people} {came} {into} {when}."
        "|{measure}."
    ),
    "past": (
        "{who} {took} {thing}|{who} {took} {thing} {where}|{who} {took} {thing} for {whom}|{who} {came} {into}"
        "|{who} {came} {into} with {whom}|{who} {slept} {where}|{who} {gave} {whom} {thing}|{who} {met} {whom} {where}"
        "|{who} {told} {whom} about {thing}|{who} {ate} {food}|{who} {ate} {food} with {food}|{who} {felt} {feeling}"
        "|{the} {animal} {ran} {into}|{the} {animal} {ran} {where}|{nature} {rose} {over} {the} {place}"
        "|{who} {how} {took} {thing}|{who} {came} {how} {into}|{who} wanted to {do}|{who} forgot to {do}"
        "|{who} tried to {do} {when}|{who} asked {whom} to {do}|{who} never {took} {thing} again"
        "|{who} took {thing} from {the} {furniture} and put it {where}|nobody {took} {thing}|it {rained} {when}"
    ),
    "going": (
        "{singular} was {doing}|{many} were {doing}|I was {doing}|{the} {animal} was asleep {where}|it was {raining}"
    ),
    "state": (
        "{singular} was {feeling}|{many} were {feeling}|I was {feeling}|{the} {object} was {looks}"
        "|{the} {object} {where} was {looks}|the {plural} were {looks}|{the} {place} was {looks} and {looks}"
        "|{the} {object} was too {size} for {whom}|{the} {animal} was {age} and {feeling}|the weather was {weather}"
        "|it was {weather} {where}|the {food} tasted {taste}|{the} {object} was {size}, {looks} and {colour}"
        "|{possessive} {object} was {colour}|one of the {plural} was {looks}|{who} had {number} {plural}"
    ),
    "present": (
        "I {like} {food}|we {like} {the} {place}|they {like} {the} {animal}|you {like} {the} {object}"
        "|{singular} {likes} {food}|{singular} {likes} {the} {object}|{singular} lives {where}|I live near {town}"
        "|{singular} works in {town} {often}|we {do} {often}|I {do} {often}|they {do} {often}|the {plural} are {looks}"
        "|{singular} is {feeling} {often}|{singular} knows how to {do}|{singular} speaks {how}|it is {weather} {often}"
        "|{town} is {miles} from here|the train to {town} leaves at {clock}|{the} shop opens at {clock} {onday}"
        "|I do not {do} {onday}|{singular} does not {like} {food}|everyone {likes} {food}"
    ),
    "future": (
        "{who} will {do}|{who} will {do} {soon}|{who} will not {do} {soon}|{singular} is going to {do}"
        "|we are going to {town} {soon}|{the} {object} will be {looks} {soon}|it will be {weather} {soon}"
        "|{who} would {do} with {whom}|{who} should {do} {soon}|{who} can {do} {how}|{who} must {do} before {clock}"
        "|{who} might {do}"
    ),
    "question": (
        "did {who} {do}|did {who} {do} {when}|will {who} {do} {soon}|can you {do}|could you {do} for {whom}"
        "|where is {thing}|where did {who} {do}|why did {who} {do}|when will {who} {do}|how did {who} {do}"
        "|what did {who} {do2} {where}|who {took} {thing}|who {came} {into}|is {singular} {feeling}"
        "|are {many} {feeling}|was {the} {object} {looks}|have you seen {thing}|have you ever been to {town}"
        "|what is the name of {the} {place}|how many {plural} are {where}|how far is it to {town}"
        "|do you {like} {food}|does {singular} {like} {food}|would you like {food} or {food}|what time is it in {town}"
        "|why is {the} {object} {where}|whose {object} is {colour}|which {object} is {size}|shall we {do} {soon}"
    ),
    "order": (
        "{do}|{do} {soon}|do not {do}|never {do} {often}|bring {whom} {thing}|put {thing} {where}|go {into}"
        "|let {whom} {do}|wait for {whom} {where}|look at {the} {object}|listen to {whom}|ask {whom} about {thing}"
        "|be careful with {thing}|turn left at {the} {place}|turn right after {the} {place}|call {whom} at {clock}"
        "|take {food} to {whom}|remember to {do}|keep {thing} {where}"
    ),
    "talk": (
        "yes, {past}.|no, {present}.|well, {state}.|oh, {present}!|thank you for {thing}.|good {part}, {name}."
        "|I think that {state}.|I thought that {past}.|{name}, {order}.|{name} said that {past}.|I am sorry, {past}."
        "|look, {the} {animal} {where}!|what {aan} {looks} {object}!|how {feeling} {singular} was!"
        "|of course {who} will {do}."
        "|my name is {name}, and I come from {town}.|hello, {name}, how are you {onday}?|{past}, said {name}."
        "|it is {clock}, and {state}.|I hope that {who} will {do}.|perhaps {future}.|welcome to {town}, {name}!"
    ),
    "wish": (
        "I wish {who} could {do}|it would be {taste} to {do}|it is {weather} enough to {do}|nothing was {looks} {where}"
    ),
    "measure": (
        "the road to {town} is {miles} long|{singular} is {number} years old|{the} {object} costs {number} pounds"
        "|the meeting begins at {clock} {onday}|{who} waited {number} hours for {whom}|{number} and {number} make more"
        "|{who} was born in {month}|it happened on the {nth} of {month}|{who} lives at {number} {name} Street"
    ),
    "is": "is {aan} {looks} {object}|are {number} {plural}|is no {object}|are {colour} {plural}|is {food}|is a {place}",
    "was": "was {aan} {age} {animal}|were {number} {people}|was a {colour} {object}|were no {plural}|was some {food}",
    "who": "{singular}|{singular}|{singular}|{many}|I",
    "singular": (
        "he|she|{name}|{name}|the {person}|the {person}|{the} {feeling} {person}|{possessive} {relative}"
        "|{possessive} {relative}|{possessive} {age} {relative}|{name}'s {relative}|the {person} from {town}"
    ),
    "many": (
        "we|you|they|the {people}|{possessive} {relatives}|{name} and {name}|{number} {people}|the {people} of {town}"
        "|some {people}|the {age} {people}|most {people}|the {person} and {possessive} {relative}"
    ),
    "whom": (
        "me|him|her|us|them|{name}|{name}|the {person}|{possessive} {relative}|{possessive} {relatives}|the {people}"
        "|the {age} {person}|a {person}|everyone|someone from {town}"
    ),
    "thing": (
        "{the} {object}|{the} {object}|{the} {looks} {object}|{the} {size} {object}|{the} {colour} {object}"
        "|{possessive} {object}|the {plural}|{number} {plural}|some {colour} {plural}|{the} {age} {object}"
        "|{aan} {object} of {material}|{the} {material} {object}|{name}'s {object}|a piece of {food}|a {box} of {food}"
    ),
    "the": "the|the|the|the|a|this|that|{possessive}|another|every",
    "aan": "a",
    "possessive": "my|your|his|her|our|their",
    "took": (
        "took|carried|bought|sold|found|lost|broke|painted|cleaned|dropped|hid|lifted|opened|closed|borrowed|returned"
        "|noticed|kept|pulled|pushed|threw|brought|chose|counted|covered|drew|fixed|held|saw|left|moved|needed|packed"
        "|picked|repaired|saved|shared|showed|stole|touched|used|wanted|washed|watched|wrapped|examined|finished|built"
    ),
    "came": (
        "came|went|walked|ran|drove|hurried|travelled|wandered|rode|returned|climbed|marched|rushed|moved|stepped"
    ),
    "slept": (
        "slept|waited|sat|stood|rested|worked|played|sang|danced|laughed|cried|stayed|read|wrote|talked|dreamed|smiled"
        "|shouted|whispered|knelt|studied|cooked|camped|prayed|hid"
    ),
    "gave": "gave|sent|showed|handed|offered|sold|promised|brought|lent|left",
    "met": "met|saw|visited|helped|followed|found|joined|thanked|greeted|heard|left|missed|called|recognised|trusted",
    "told": "told|asked|warned|reminded|wrote to|spoke to|lied to|dreamed with|argued with|heard from",
    "ate": "ate|cooked|ordered|wanted|made|tasted|shared|enjoyed|served|refused|bought|chose|finished",
    "felt": "felt|looked|seemed|became|grew|sounded|remained",
    "ran": "ran|jumped|slept|hid|crawled|barked|waited|sat|rested|turned|vanished|fled|raced|crept|appeared",
    "rose": "rose|hung|shone|passed|moved|spread|drifted|settled|faded|gathered",
    "rained": "rained|snowed|rained hard|snowed a little|froze|thundered|grew dark|cleared up|rained all day",
    "raining": "raining|snowing|getting dark|getting late|growing cold|freezing|blowing hard",
    "lay": "lay|stood|were|remained|were left|fell|were hidden|were stacked",
    "like": "like|love|need|hate|know|want|remember|miss|prefer|enjoy",
    "likes": "likes|loves|needs|hates|knows|wants|remembers|misses|prefers|enjoys",
    "do": (
        "{do1} {thing}|{do1} {thing} {where}|{do2}|{do2} {where}|{do2} with {whom}|go {into}|help {whom}"
        "|meet {whom} {where}|eat {food}|give {whom} {thing}|talk to {whom} about {thing}|visit {town}|{do2} {how}"
        "|{do2} at {clock}"
    ),
    "do1": (
        "find|bring|buy|sell|carry|clean|open|close|fix|hold|keep|leave|lift|lose|move|paint|pull|push|read|save|send"
        "|show|take|throw|touch|use|wash|watch|write about|look for|draw|choose|break|build|count|cover|hide|steal"
    ),
    "do2": (
        "sleep|wait|sit|stand|rest|work|play|sing|dance|laugh|walk|run|swim|stay|read|write|talk|dream|smile|shout|cook"
        "|study|begin|listen|think|leave|eat|drink|fish|travel|learn|drive|ride|hurry"
    ),
    "doing": (
        "sleeping|waiting|sitting {where}|standing {where}|resting|working|playing|singing|dancing|laughing"
        "|walking {into}|reading|writing|talking to {whom}|dreaming|smiling|cooking {food}|eating {food}"
        "|cleaning {thing}|looking for {thing}|painting {thing}|thinking about {thing}|watching {the} {animal}"
        "|listening|travelling"
    ),
    "how": (
        "slowly|quickly|quietly|carefully|gladly|suddenly|often|always|gently|loudly|softly|calmly|secretly|badly|well"
        "|easily|bravely|proudly|happily|sadly|lazily|nervously|politely|together|alone"
    ),
    "often": (
        "every day|every week|every {day}|on {day}|in the {part}|in {season}|all year|most of the time|now and then"
        "|once a month|twice a week|before breakfast|after school|at the weekend|from {day} to {day}"
    ),
    "when": (
        "yesterday|last night|last week|last {day}|last {season}|in {month}|on {day} {part}|that {part}|this {part}"
        "|at {clock}|before dawn|after dinner|a year ago|{number} days ago|{number} weeks later|for {number} minutes"
        "|in the {part}|all day|until {clock}|as usual|at last|for a while|during the {event}|the day before"
    ),
    "soon": (
        "tomorrow|soon|next week|next {day}|next {season}|in {month}|on {day}|this {part}|tonight|in {number} minutes"
        "|after lunch|before {clock}|in a moment|one day|later|at once|now|before the {event}|again"
    ),
    "onday": "on {day}|today|this {part}|on {day} {part}|in {month}|in {season}|now",
    "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "part": "morning|afternoon|evening",
    "season": "spring|summer|autumn|winter",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December",
    "nth": "first|second|third|fourth|fifth|sixth|ninth|tenth|twelfth|fifteenth|twentieth|thirtieth",
    "clock": (
        "{hour} o'clock|half past {hour}|a quarter past {hour}|a quarter to {hour}|ten past {hour}|noon|midnight"
        "|{hour} in the {part}|twenty to {hour}"
    ),
    "hour": "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve",
    "number": (
        "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
        "|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|a hundred|twenty one|thirty five"
        "|forty two|ninety nine|two hundred|a thousand"
    ),
    "miles": "{number} miles|{number} kilometres|a few miles|half a mile|an hour|a long way",
    "event": "war|storm|wedding|game|concert|holiday|meeting|journey|race|exam|party|trial|flood|show|election|strike",
    "name": (
        "Anna|Ben|Clara|David|Emma|Frank|Grace|Henry|Ivy|Jack|Kate|Leo|Mary|Nora|Oliver|Paul|Rose|Sam|Thomas|Victor"
        "|William|Zoe|Alice|Arthur|Bella|Charles|Daniel|Edith|Felix|George|Helen|James|Julia|Laura|Martin|Michael|Oscar"
        "|Peter|Robert|Ruth|Sarah|Simon|Susan|Walter|Mister Brown|Doctor Green|Mister Young|Professor Hill|Aunt Jane"
    ),
    "town": (
        "London|Paris|Rome|Dublin|Oxford|Boston|Chicago|Berlin|Madrid|Vienna|Athens|Cairo|Delhi|Tokyo|Sydney|Lisbon|York"
        "|Moscow|Brussels|Venice|Geneva|Bristol|Texas|Canada|France|Spain|India|Africa|Norway|Wales|Scotland|the coast"
    ),
    "person": (
        "teacher|doctor|farmer|baker|driver|soldier|sailor|student|nurse|painter|writer|king|queen|judge|lawyer|waiter"
        "|singer|child|girl|boy|woman|man|stranger|guest|neighbour|policeman|priest|gardener|hunter|merchant|pilot"
        "|captain|prisoner|shepherd|engineer|cook|tailor|actor|guard|thief|visitor|chemist|mayor|poet|clerk|butcher"
    ),
    "people": (
        "teachers|doctors|farmers|drivers|soldiers|sailors|students|nurses|children|girls|boys|women|men|people|guests"
        "|neighbours|friends|visitors|workers|players|villagers|strangers|hunters|travellers|tourists|thieves|guards"
    ),
    "relative": (
        "mother|father|brother|sister|uncle|aunt|cousin|son|daughter|wife|husband|friend|grandmother|grandfather|boss"
        "|nephew|niece|partner|neighbour|teacher"
    ),
    "relatives": "parents|brothers|sisters|children|friends|cousins|sons|daughters|neighbours|uncles|grandparents",
    "animal": (
        "dog|cat|horse|cow|sheep|goat|pig|mouse|rabbit|fox|wolf|bear|lion|tiger|monkey|elephant|bird|eagle|owl|duck"
        "|goose|hen|fish|frog|snake|bee|butterfly|spider|donkey|camel|deer|squirrel|turtle|whale|puppy|kitten|swan"
    ),
    "food": (
        "bread|butter|cheese|milk|soup|rice|meat|chicken|fish|eggs|apples|oranges|pears|grapes|cherries|potatoes|onions"
        "|carrots|beans|salad|cake|honey|sugar|salt|coffee|tea|water|juice|chocolate|ice cream|toast|jam|nuts|pie"
        "|fresh fruit|warm bread|cold water|sweet tea|vegetables|pancakes|sandwiches|lemonade|mushrooms|noodles|spinach"
    ),
    "box": "box|bag|bowl|basket|plate|cup|jar|bottle|pound|spoonful|tin",
    "taste": "good|sweet|bitter|sour|salty|wonderful|strange|awful|fine|delicious|rather odd|better than before|nice",
    "object": (
        "book|letter|lamp|chair|table|window|door|key|coat|hat|shoe|ring|watch|clock|picture|mirror|knife|spoon|plate"
        "|bottle|basket|bag|box|bed|blanket|candle|camera|piano|guitar|violin|drum|boat|ship|car|bicycle|train|bus|wheel"
        "|rope|hammer|ladder|bucket|shovel|flag|coin|map|newspaper|ticket|umbrella|pencil|computer|telephone|radio"
        "|machine|engine|stone|flower|feather|shirt|dress|jacket|glove|scarf|button|needle|carpet|curtain|pillow|kettle"
        "|oven|jug|vase|statue|treasure|sword|shield|crown|whistle|ball|doll|kite|puzzle|parcel|notebook|dictionary"
    ),
    "plural": (
        "books|letters|lamps|chairs|tables|windows|doors|keys|coats|hats|shoes|rings|clocks|pictures|knives|plates"
        "|bottles|baskets|bags|boxes|blankets|candles|boats|ships|cars|bicycles|wheels|ropes|flags|coins|maps|tickets"
        "|pencils|stones|flowers|feathers|shirts|gloves|buttons|leaves|branches|trees|houses|bridges|horses|dogs|sheep"
        "|birds|mice|eggs|balls|toys|glasses|cushions|shelves|matches|songs|stories|questions|answers|promises|secrets"
    ),
    "material": "wood|gold|silver|glass|stone|iron|paper|leather|wool|silk|brass|copper|cotton|clay|ice|marble|straw",
    "furniture": "table|chair|bed|shelf|cupboard|desk|floor|bench|stove|window|wall|roof|cart|counter|stairs|drawer",
    "nature": (
        "the sun|the moon|the fog|a cloud|a rainbow|the smoke|the wind|the snow|a thin mist|the storm|the dust"
    ),
    "place": (
        "house|garden|kitchen|school|church|market|station|library|hospital|museum|theatre|factory|farm|barn|castle"
        "|village|city|town|street|road|bridge|river|lake|sea|beach|island|forest|wood|field|hill|mountain|valley|desert"
        "|park|shop|hotel|restaurant|office|bank|prison|harbour|airport|tower|palace|cave|cottage|square|courtyard|mill"
    ),
    "into": (
        "into the {place}|to the {place}|to the {place}|across the {place}|through the {place}|towards the {place}"
        "|past the {place}|out of the {place}|home|to {town}|back to {town}|up the hill|down the street|along the river"
        "|around the {place}|away from the {place}|from the {place} to the {place}|upstairs|outside"
    ),
    "where": (
        "in the {place}|in the {place}|near the {place}|behind the {place}|beside the {place}|in front of the {place}"
        "|at the {place}|on the {furniture}|under the {furniture}|by the {furniture}|next to the {object}|in {town}"
        "|between the {place} and the {place}|at home|outside|upstairs|on the other side of the {place}"
        "|in {possessive} room|inside the {place}|opposite the {place}|over there|in the middle of the {place}"
        "|not far from the {place}"
    ),
    "over": "over|above|behind|across|around|beyond",
    "feeling": (
        "happy|sad|angry|tired|hungry|thirsty|afraid|proud|lonely|calm|nervous|sick|ill|cold|busy|late|quiet|kind|rude"
        "|honest|clever|foolish|brave|lazy|jealous|curious|polite|bored|surprised|worried|careful|cheerful|gentle|strong"
        "|weak|famous|rich|poor|young|excited|ashamed|grateful|patient|safe|ready|serious|shy"
    ),
    "looks": (
        "clean|dirty|broken|empty|full|open|shut|wet|dry|warm|cold|hot|heavy|light|soft|hard|smooth|rough|sharp|bright"
        "|dark|beautiful|ugly|strange|cheap|expensive|simple|rusty|dusty|quiet|noisy|dangerous|safe|new|lost|ready"
        "|crooked|shiny|hollow|round|square|narrow|wide|ordinary|perfect|rotten|precious|loose|frozen|smelly"
    ),
    "size": "small|large|big|huge|tiny|long|short|tall|thin|thick|wide|narrow|heavy|deep|little|enormous|great",
    "colour": "red|blue|green|yellow|white|black|brown|grey|orange|purple|pink|golden|silver|dark blue|pale green",
    "age": "old|young|little|new|ancient|elderly|tiny|poor|wise|strange|big|sleepy|friendly|wild",
    "weather": "warm|cold|hot|wet|dry|windy|foggy|cloudy|sunny|icy|fine|mild|dreadful|stormy|bright|rather cool|lovely",
}  # fmt: skip
RULES = {symbol: text.split("|") for symbol, text in GRAMMAR.items()}
SYMBOL = re.compile(r"\{(\w+)\}")
ALONE = re.compile(r"\ba (?=[aeio])", re.IGNORECASE)


def expand(text: str, chance: random.Random) -> str:
    """Put a random alternative in the place of every symbol."""
    return SYMBOL.sub(lambda found: expand(chance.choice(RULES[found[1]]), chance), text)


def invented(chance: random.Random) -> str:
    """One sentence of the grammar."""
    return finished(ALONE.sub("an ", expand("{sentence}", chance)))


def finished(text: str) -> str:
    """A capital at the beginning and a stop at the end."""
    text = re.sub(r"\s+", " ", text).strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def examples(folder: Path) -> list[str]:
    """The examples of use in WordNet's dictionary, but for rude ones and for quotations with an author."""
    found = []
    for kind in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{kind}").read_text(encoding="utf-8").splitlines():
            gloss = line.partition(" | ")[2]
            if gloss and not RUDE.search(gloss):
                # Odd parts lie between quotation marks; the part behind one tells whether an author follows.
                parts = gloss.split('"')
                pairs = zip(parts[1::2], parts[2::2], strict=False)
                found += [text for text, after in pairs if not after.lstrip().startswith("-")]
    return [finished(text) for text in found if len(text.split()) >= 3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--sentences", type=int, default=100_000)
    parser.add_argument("--wordnet", action="store_true", help="begin with the examples of WordNet")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, lines = random.Random(arguments.seed), {}
    if arguments.wordnet:
        if not (WORDNET / "data.noun").is_file():
            parser.error(f"no WordNet in {WORDNET}: apt-get install wordnet-base, or leave out --wordnet")
        lines = {text.lower(): text for text in examples(WORDNET)}
    taken = len(lines)
    while len(lines) < arguments.sentences:
        text = invented(chance)
        lines.setdefault(text.lower(), text)
    part = arguments.file.with_suffix(".part")
    part.write_text("\n".join(list(lines.values())[: arguments.sentences]) + "\n", encoding="utf-8")
    os.replace(part, arguments.file)
    words = {word for text in lines for word in re.findall(r"[a-z']+", text)}
    print(f"{len(lines)} sentences with {len(words)} different words in {arguments.file}, {taken} from WordNet")


if __name__ == "__main__":
    main()
