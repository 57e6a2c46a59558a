"""Sentences of the kinds that collected texts lack: letters, acronyms, numbers in words, names, addresses, greetings.

Drawn from templates by a seeded generator; numbers are written by num2words.
"""

import random
import re
from string import ascii_uppercase

from num2words import num2words

ACRONYMS = (
    "ABC", "ATM", "BBC", "BMW", "CBS", "CD", "CEO", "CFO", "CIA", "CNN", "CPU", "CV", "DC", "DIY", "DJ", "DNA", "DVD",
    "EU", "FAQ", "FBI", "FM", "GDP", "GMT", "GPS", "GPU", "HBO", "HIV", "HR", "HTML", "HTTP", "IBM", "ID", "IP", "IQ",
    "IRS", "IT", "KGB", "LA", "LCD", "LED", "MBA", "MIT", "MP", "MRI", "MTV", "NBA", "NBC", "NFL", "NHL", "NHS",
    "NYC", "OK", "PC", "PDF", "PE", "PIN", "PM", "PR", "PS", "RSVP", "SMS", "SOS", "SQL", "SUV", "TV", "UCLA", "UFO",
    "UK", "UN", "URL", "US", "USA", "USB", "VIP", "VPN", "WWF", "XML", "API", "AI", "IOU", "DNS", "RAM", "FDA", "EPA",
    "UPS", "AM",
)  # fmt: skip
WRITTEN = (
    "BBC", "FBI", "CIA", "USA", "UK", "TV", "DNA", "IBM", "CEO", "DVD", "CNN", "EU", "UN", "NBA", "FM", "PC", "CD",
)  # fmt: skip
"""Acronyms that the teacher spells also when they are written as one word."""
FIRST = (
    "Aaron", "Abigail", "Adam", "Adrian", "Alan", "Alex", "Alexander", "Amanda", "Amelia", "Amy", "Andrea", "Andrew",
    "Angela", "Anthony", "Ashley", "Barbara", "Benjamin", "Brian", "Bruce", "Carlos", "Carol", "Caroline",
    "Catherine", "Charlotte", "Chris", "Christina", "Christopher", "Cynthia", "Daisy", "Deborah", "Dennis", "Diana",
    "Donald", "Donna", "Dorothy", "Douglas", "Edward", "Eleanor", "Elizabeth", "Ella", "Emily", "Eric", "Ethan",
    "Eva", "Fiona", "Florence", "Frances", "Gary", "Gregory", "Hannah", "Harold", "Harry", "Heather", "Ian", "Isaac",
    "Isabella", "Jacob", "Jason", "Jennifer", "Jeremy", "Jessica", "Joan", "John", "Jonathan", "Joseph", "Joshua",
    "Judith", "Justin", "Karen", "Keith", "Kenneth", "Kevin", "Kyle", "Larry", "Lauren", "Lily", "Linda", "Lisa",
    "Louis", "Lucas", "Lucy", "Luke", "Margaret", "Maria", "Mark", "Matthew", "Megan", "Melissa", "Nancy", "Natalie",
    "Nathan", "Nicholas", "Nicole", "Olivia", "Pamela", "Patricia", "Patrick", "Philip", "Rachel", "Raymond",
    "Rebecca", "Richard", "Roger", "Ronald", "Ryan", "Samantha", "Sandra", "Scott", "Sean", "Sharon", "Sophia",
    "Stephanie", "Stephen", "Steven", "Teresa", "Theodore", "Timothy", "Tyler", "Vanessa", "Victoria", "Vincent",
    "Virginia", "Wendy", "Zachary", "Ahmed", "Ali", "Chen", "Fatima", "Hiroshi", "Ibrahim", "Ivan", "Jose", "Juan",
    "Kim", "Mohammed", "Natasha", "Pedro", "Priya", "Raj", "Wei",
)  # fmt: skip
LAST = (
    "Adams", "Allen", "Anderson", "Bailey", "Baker", "Bell", "Bennett", "Brooks", "Brown", "Campbell", "Carter",
    "Clark", "Collins", "Cooper", "Cox", "Davis", "Diaz", "Edwards", "Evans", "Fisher", "Foster", "Garcia", "Gomez",
    "Gonzalez", "Gray", "Green", "Hall", "Harris", "Hernandez", "Hill", "Howard", "Hughes", "Jackson", "James",
    "Jenkins", "Johnson", "Jones", "Kelly", "Khan", "King", "Lee", "Lewis", "Long", "Lopez", "Martin", "Martinez",
    "Miller", "Mitchell", "Moore", "Morgan", "Morris", "Murphy", "Myers", "Nelson", "Nguyen", "Parker", "Patel",
    "Perez", "Perry", "Peterson", "Phillips", "Powell", "Price", "Ramirez", "Reed", "Richardson", "Rivera", "Roberts",
    "Robinson", "Rodriguez", "Rogers", "Ross", "Russell", "Sanchez", "Sanders", "Scott", "Shakespeare", "Smith",
    "Stewart", "Sullivan", "Taylor", "Thomas", "Thompson", "Torres", "Turner", "Walker", "Ward", "Washington",
    "Watson", "White", "Williams", "Wilson", "Wood", "Wright", "Young", "Einstein", "Newton",
)  # fmt: skip
PLACES = (
    "Amsterdam", "Argentina", "Arizona", "Asia", "Australia", "Austria", "Bangkok", "Barcelona", "Beijing", "Belgium",
    "Brazil", "Britain", "California", "Chile", "China", "Colorado", "Copenhagen", "Denmark", "Egypt", "England",
    "Europe", "Florida", "Germany", "Greece", "Hawaii", "Houston", "Hungary", "Iceland", "Indonesia", "Iran", "Iraq",
    "Ireland", "Israel", "Istanbul", "Italy", "Jamaica", "Japan", "Kenya", "Korea", "Manchester", "Melbourne",
    "Mexico", "Miami", "Michigan", "Milan", "Montreal", "Morocco", "Mumbai", "Munich", "Nepal", "Netherlands",
    "Nigeria", "Ohio", "Pakistan", "Peru", "Philadelphia", "Poland", "Portugal", "Prague", "Russia", "Seattle",
    "Seoul", "Shanghai", "Singapore", "Stockholm", "Sweden", "Switzerland", "Syria", "Taiwan", "Thailand", "Toronto",
    "Turkey", "Ukraine", "Vancouver", "Vietnam", "Virginia", "Zurich", "Washington",
)  # fmt: skip
TEMPLATES = {
    "letters": (
        "My name is spelled {word}.", "{word} spells {name}.", "The code is {letters}.",
        "Please press {letter} to go on.", "The letter {letter} comes before {letter}.",
        "Is it {letter} or {letter}?", "{letters}.", "{letter}, {letter}, {letter}.",
        "Plan {letter} is better than plan {letter}.", "She lives in block {letter}, flat {count}.",
        "Gate {letter} {count}.", "Take vitamin {letter} every day.",
        "It is spelled with the letter {letter}, not the letter {letter}.",
        "The answer to question {count} is {letter}.", "He drew the letter {letter} in the sand.",
        "Turn to page {count} {letter}.", "The words begin with {letter} and end in {letter}.",
        "Platform {letter} is closed.", "Write {letters} on the form.",
    ),
    "acronyms": (
        "The {acronym} said no.", "He works for the {acronym}.", "She joined the {acronym} in {year}.",
        "What does {acronym} mean?", "I saw it on the {acronym} last night.", "{acronym} stands for something else.",
        "The {acronym} and the {acronym} disagree.", "My {acronym} is broken again.",
        "Is there another {acronym} here?", "Ask the {acronym} about it!", "{acronym}.",
        "The new {acronym} costs {count} dollars.", "Where is the {acronym} office?",
        "They moved from the {acronym} to {place}.", "The {initials} report was late.",
        "{initials} is a company in {place}.", "Doctor {letter} {letter} {last} is here.",
    ),
    "numbers": (
        "It costs {number} dollars.", "There were {number} people.", "{number}.", "The total is {number}.",
        "In {year}, he left.", "She was born in {year}.", "It happened in {year} and again in {year}.",
        "The answer is {decimal}.", "{number} plus {count} is more.", "About {count} percent of them agreed.",
        "It weighs {decimal} kilograms.", "We need {count} more.", "He came {ordinal}.",
        "On the {ordinal} of {month}, {year}.", "The {ordinal} time was better.", "It is {count} degrees outside.",
        "The distance is {number} miles.", "Meet me at {hour} {minute}.", "It was {hour} {minute} in the morning.",
        "The {century} century was different.", "That is {count} dollars and {count} cents.", "Call {digits}.",
        "My number is {digits}.", "The {count} of us waited for {count} hours.", "Chapter {count}, page {number}.",
        "Minus {count} degrees.", "{count} out of {count}.", "Is it {number} or {number}?", "Only {count} percent!",
        "The population is {number}.",
    ),
    "names": (
        "{first} {last} called.", "Have you met {first} {last}?", "{first} is from {place}.",
        "I wrote to {first} and {first}.", "Mister {last} lives in {place}.", "Missus {last} is not here.",
        "Doctor {last} will see you now.", "{first}!", "{first} {last}.", "{place} is the capital.",
        "We flew from {place} to {place}.", "The people of {place} voted.", "{first}'s brother lives in {place}.",
        "Is {first} coming?", "Miss {last}, this is {first} {last}.", "Where is {place}?",
        "{first}, {first} and {first} came too.", "The {last} family moved to {place}.",
        "President {last} spoke in {place}.", "Thank you, {first}.", "Hello, {first}.",
        "{place}, {place} and {place}.", "Professor {last} taught in {place}.", "{last} and {last} won.",
    ),
    "addresses": (
        "Write to {lower} at {host} dot com.", "The page is {host} dot org.", "Go to w w w dot {host} dot com.",
        "It is {host} dot {letter} {letter} slash {lower}.", "My address is {lower} dot {lower} at {host} dot net.",
    ),
    "greetings": (
        "Hello.", "Hello, {first}!", "Hello world.", "Hi.", "Hi there!", "Yes.", "No.", "Yes, {first}.",
        "No, {first}.", "Good morning.", "Good morning, {first}.", "Good night!", "Goodbye.", "Thank you.",
        "Thanks a lot!", "Please.", "Sorry.", "Of course.", "Sure.", "Okay.", "Well done!", "Really?", "Why?",
        "Why not?", "How are you?", "What is your name?", "My name is {first}.", "See you soon.",
    ),
}  # fmt: skip
SHARES = {"letters": 5, "acronyms": 4, "numbers": 6, "names": 5, "addresses": 1, "greetings": 1}
"""How often each kind is drawn beside the others."""
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
HOSTS = (
    "example", "mail", "news", "weather", "school", "garden", "music", "travel", "science", "city", "web", "world",
)  # fmt: skip
CENTURIES = (
    "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth", "twenty-first",
)  # fmt: skip


def spelled(word: str) -> str:
    """The letters of a word apart: "FBI" -> "F B I"."""
    return " ".join(word.upper())


class Kinds:
    """Draws sentences of these kinds."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def sentence(self) -> str:
        kind = self.chance.choices(list(SHARES), list(SHARES.values()))[0]
        template = self.chance.choice(TEMPLATES[kind])
        text = re.sub(r"\{(\w+)\}", lambda found: getattr(self, found[1])(), template)
        return text[0].upper() + text[1:]

    def letter(self) -> str:
        return self.chance.choice(ascii_uppercase)

    def letters(self) -> str:
        return " ".join(self.chance.choices(ascii_uppercase, k=self.chance.randint(2, 6)))

    initials = letters

    def word(self) -> str:
        return spelled(self.chance.choice((*FIRST, *LAST)))

    def acronym(self) -> str:
        return self.chance.choice(WRITTEN) if self.chance.random() < 0.3 else spelled(self.chance.choice(ACRONYMS))

    def first(self) -> str:
        return self.chance.choice(FIRST)

    name = first

    def last(self) -> str:
        return self.chance.choice(LAST)

    def place(self) -> str:
        return self.chance.choice(PLACES)

    def month(self) -> str:
        return self.chance.choice(MONTHS)

    def host(self) -> str:
        return self.chance.choice(HOSTS)

    def lower(self) -> str:
        return self.chance.choice(FIRST).lower()

    def century(self) -> str:
        return self.chance.choice(CENTURIES)

    def words(self, value: float | str, to: str = "cardinal") -> str:
        """A number in words; half of them without hyphens."""
        text = str(num2words(value, to=to))
        return text.replace("-", " ") if self.chance.random() < 0.5 else text

    def count(self) -> str:
        return self.words(self.chance.randint(0, 120))

    def number(self) -> str:
        """Of one to seven digits, round ones more often than chance has it."""
        digits = self.chance.randint(1, 7)
        value = self.chance.randint(10 ** (digits - 1), 10**digits - 1)
        if self.chance.random() < 0.4:
            value = round(value, 1 - digits + self.chance.randint(0, 1))
        return self.words(value)

    def decimal(self) -> str:
        return self.words(f"{self.chance.randint(0, 99)}.{self.chance.randint(1, 999)}")

    def ordinal(self) -> str:
        return self.words(self.chance.randint(1, 31), "ordinal")

    def year(self) -> str:
        return self.words(
            self.chance.choice((self.chance.randint(1900, 2030), self.chance.randint(1066, 1999))), "year"
        )

    def hour(self) -> str:
        return self.words(self.chance.randint(1, 12))

    def minute(self) -> str:
        return self.words(self.chance.randint(10, 59))

    def digits(self) -> str:
        names = [str(num2words(self.chance.randint(0, 9))) for _ in range(self.chance.randint(3, 8))]
        return (", " if self.chance.random() < 0.3 else " ").join(names)


def sentences(size: int, seed: int = 0) -> list[str]:
    """`size` different sentences."""
    kinds, found = Kinds(seed), {}
    while len(found) < size:
        text = kinds.sentence()
        found.setdefault(text, None)
    return list(found)
