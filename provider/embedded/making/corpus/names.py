"""Names of every make, which a model can only copy letter by letter.

A model that copies one kind of name has learnt that kind. So these have one to three words, with
particles, hyphens and apostrophes; letters with accents and of other scripts; small letters and
capitals; syllables as languages have them, and letters in no order at all.
"""

from __future__ import annotations

import random

from provider.embedded.making.corpus.words import CITIES, PEOPLE, held_out, listed, made_up_word

__all__ = ["COMMON", "any_name", "person_name"]

GIVEN = listed("""
Ada Adam Aisha Ali Amara Amir Amy Andrea Anton Arjun Astrid Bea Bella Bo Boris Carla Carlos Chen Chloe
Diego Eli Elena Elif Emma Eric Eva Farah Felix Fatima Gabriel Gita Hana Hannah Hassan Ida Igor Ilse Ivan
Jana Jasmine Jo Johan Jonas Jorge Juan Julia Kai Karim Kenji Kim Lars Layla Lena Li Liam Lily Linh Lola
Lucas Luca Lucy Luna Magda Malik Marco Maria Marta Max Mei Mia Mila Mina Mohamed Nadia Nia Nico Nils Nina
Nora Oliver Omar Oscar Otto Pablo Pedro Pia Priya Quinn Rafael Raj Ravi Rita Robin Ruth Sara Sofia Sven
Tess Theo Tim Tom Uma Ursula Vera Viktor Wanda Will Xena Yuki Yusuf Zara Zeno Al Ed Ty Jean Anne Marie
Søren Zoë Chloé René José María Ángel Jürgen Björn Åsa Łukasz Žofia Mateusz Siân Seán Noël Inés Andrés Iñigo
""")
TOWNS = listed("""
San_Francisco New_York Los_Angeles Rio_de_Janeiro São_Paulo Zürich Buenos_Aires Mexico_City Hong_Kong
Cape_Town Tel_Aviv Addis_Ababa Kuala_Lumpur Ho_Chi_Minh_City Phnom_Penh Las_Vegas Salt_Lake_City St._Louis
San_Diego San_José Santa_Fe El_Paso New_Delhi Abu_Dhabi Saint-Étienne Aix-en-Provence Kraków Łódź Gdańsk
Malmö Göteborg Århus Ålesund Tromsø Reykjavík Köln München Düsseldorf Genève Besançon Nîmes Málaga Cádiz
A_Coruña Córdoba León Bogotá Medellín Asunción Brasília Florianópolis Belém Lomé Yaoundé Hà_Nội Đà_Nẵng
İzmir Eskişehir Iași Timișoara Plzeň Brno Košice Győr Pécs Šiauliai Tórshavn Nuuk Baden-Baden
Bad_Homburg Frankfurt_am_Main Stratford-upon-Avon Stoke-on-Trent Washington,_D.C. Dar_es_Salaam
Port_Moresby Santiago_de_Chile Ciudad_Juárez Antananarivo Ulaanbaatar Ouagadougou Nizhny_Novgorod
Bangkok Beijing Shanghai Mumbai Karachi Lagos Istanbul Moscow Munich Milan Naples Venice Geneva Lyon
Nice Hamburg Cologne Dresden Leipzig Stuttgart Brussels Antwerp Amsterdam Rotterdam Copenhagen Stockholm
Gothenburg Bergen Riga Vilnius Tallinn Minsk Kyiv Bucharest Sofia Belgrade Zagreb Ljubljana Budapest
Bratislava Houston Dallas Austin Denver Seattle Portland Phoenix Miami Atlanta Detroit Philadelphia
Montreal Vancouver Ottawa Calgary Melbourne Brisbane Perth Auckland Wellington Osaka Kyoto Nagoya Busan
""")
PARTICLES = listed("de del la le van von da dos di al el of on am y bin ter the")
HEADS = listed(
    "New San Santa Los Las El Saint St. Port Bad Mount North South East West Old Great Fort Lake Upper"
)
TAILS = listed("City Town Bay Falls Beach Springs Island Hills Valley Point Junction Bridge Park")
PLAIN = listed("""
Garden Market Station Field Corner Common Green Forest Castle Mill Cove Harbour Ridge Grove Meadow Crossing Light
House Hall Moor Glen Shore Sound Summit Plain Manor Quarry Landing Haven Heath Wells Fort Pass Peak Brook Ford Marsh
Beacon Chapel Village Wood Terrace Mesa Canyon Desert Lagoon Reef Delta Oasis Basin Major Minor Magna Parva Sur Este
Norte Alto Baixo Grande Verde Nova Centro Mar Lago Bad Ost West Nord Süd See Berg Dorf Sul Vecchia Nuova Alta Bassa
I III IV VI X Junior Senior East South North West End Way Lane Street Road Row Place Square Gate Cross Hill
""")

# Common words whose pieces names hold too: a model reads them as whole tokens, not as letters.
COMMON = listed("""
about afraid after again alone along always another answers anybody anything artist asked assistant batch
beautiful became before beginning begins behind berries between beyond birds booked bread bridge brief
bright bring called castle changed cities clear clever client clouds connect could count crossroads
dangerous degrees directions distance dream euros evening everybody everything except fields first forest
found frame friends gateway generate giant going goodbye great ground guessed happy heard higher hills
itself journey kilometres lantern laughed letter liked listened little lived lives lonely looked looking
message middle minutes model morning mountains music named never night nobody nothing numbers oldest opened
other passed patience people person phone piece place playing please pointed price promised question quiet
rainbow rained rainy remembered restaurant ribbon rings river second secret seemed shall shorter signs
silver singing sitting sleeps slowly small smile somebody something songs spoke stars start stayed still
stones stood stopped stories storm story stranger stream suddenly summer table talking tasted their there
thick think third thought three through thunder timer times tired today together token tools trees tried
turned under until waited wants weather where while whistle whose window winter wondered woods worked world
worth would young the and of in to an on up at over upon with from for by near below above beside off into
onto out down as like or than be is was no not so all any one two far star man now how sailor target
parameters integer user elf member reservation language serve system tailor manner lamp umbrella order
broken sticker feld berg island market trailer pilot oak ashes elder
""")

ONSETS = listed("""
b bl br c ch cl cr d dh dj dr dw f fj fl fr g gh gl gn gr gw h hj hr j k kh kl kn kr kv kw l ll m mb mc n
nd ng nj ny p ph pl pr ps q qu r rh s sc sch sh sk sl sm sn sp sq st str sv sw sz t th tl tr ts tsch tw v
vl vr w wh wr x y z zh zw zl
""")
VOWELS = listed(
    "a e i o u a e i o u aa ae ai au ay ea ee ei eo eu ey ia ie io oa oe oi oo ou oy ua ue ui uu y"
)
CODAS = listed("""
b ck ch d f ff g gg h k l ll lm ld lk lt m mm mp n nd ng nk nn ns nt nz p pp r rd rg rk rl rm rn rr rs rt
s sch sh sk ss st t th ts tt tz v w x y z zz
""")
ACCENTED = {
    "a": "áàâäãåāăąæ",
    "c": "çćčĉ",
    "d": "ďđð",
    "e": "éèêëēęěė",
    "g": "ğģĝ",
    "h": "ĥħ",
    "i": "íìîïīįı",
    "k": "ķ",
    "l": "łľļ",
    "n": "ñńňņ",
    "o": "óòôöõøōőœ",
    "r": "řŕ",
    "s": "śšşșß",
    "t": "ťțþ",
    "u": "úùûüūůűų",
    "w": "ŵ",
    "y": "ýÿ",
    "z": "źžż",
}
SCRIPTS = (  # the first and the last letter of Greek, Cyrillic, Hebrew, Arabic, and others
    (0x03B1, 0x03C9),
    (0x0430, 0x044F),
    (0x05D0, 0x05EA),
    (0x0627, 0x064A),
    (0x3041, 0x3093),
    (0x30A1, 0x30F3),
    (0x4E00, 0x9FA5),
    (0xAC00, 0xD7A3),
    (0x0915, 0x0939),
    (0x0E01, 0x0E2E),
    (0x1EA1, 0x1EF9),
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _loose(rng: random.Random) -> str:
    """Return syllables of any language's make."""
    parts: list[str] = []
    for _ in range(rng.choice([1, 1, 2, 2, 2, 3, 3, 4])):
        parts.append(rng.choice(ONSETS) if rng.random() < 0.85 else "")
        parts.append(rng.choice(VOWELS[:10] if rng.random() < 0.7 else VOWELS))
        parts.append(rng.choice(CODAS) if rng.random() < 0.4 else "")
    return "".join(parts)


def _letters(rng: random.Random) -> str:
    return "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 9)))


def _accented(rng: random.Random, word: str) -> str:
    places = [at for at, letter in enumerate(word) if letter in ACCENTED]
    for at in rng.sample(places, min(len(places), rng.choice([1, 1, 1, 2, 2, 3]))):
        word = word[:at] + rng.choice(ACCENTED[word[at]]) + word[at + 1 :]
    return word


def _pieces(rng: random.Random) -> str:
    """Return pieces of common words that were never meant for each other."""
    parts: list[str] = []
    for _ in range(rng.choice([1, 2, 2, 2, 3, 3, 4])):
        word = rng.choice(COMMON)
        start = rng.randint(0, max(0, len(word) - 2))
        parts.append(word[start : start + rng.choice([1, 2, 3, 3, 4, 5, 6])])
    return "".join(parts)


def _foreign(rng: random.Random) -> str:
    first, last = rng.choice(SCRIPTS)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(2, 6)))


def _word(rng: random.Random) -> str:
    """Return one word of a name with its capital."""
    kind = rng.random()
    if kind < 0.22:
        word = made_up_word(rng, low=1, high=4)
    elif kind < 0.50:
        word = _loose(rng)
    elif kind < 0.74:
        word = _pieces(rng)
    elif kind < 0.82:
        word = _letters(rng)
    elif kind < 0.97:
        return rng.choice([*GIVEN, *PEOPLE, *CITIES])
    else:
        return _foreign(rng)
    if rng.random() < 0.3:
        word = _accented(rng, word)
    return word[0].upper() + word[1:]


def _particle(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(PARTICLES if kind < 0.4 else COMMON)
    word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(1, 3)))
    word = word if rng.random() < 0.4 else made_up_word(rng, low=1, high=1)
    return _accented(rng, word) if rng.random() < 0.2 else word


def _joined(rng: random.Random) -> str:
    """Return two or three words as names are put together."""
    first, second = _word(rng), _word(rng)
    kind = rng.random()
    if kind < 0.42:
        return f"{first} {second}"
    if kind < 0.55:
        return f"{first} {second} {_word(rng)}"
    if kind < 0.68:
        return f"{first} {_particle(rng)} {second}"
    if kind < 0.76:
        return f"{rng.choice(HEADS)} {second}"
    if kind < 0.84:
        return f"{first} {rng.choice(rng.choice([TAILS, PLAIN, COMMON])).capitalize()}"
    if kind < 0.92:
        return f"{first}-{second if rng.random() < 0.7 else second.lower()}"
    if kind < 0.95:
        return f"{rng.choice(['O', 'D', 'N', 'L'])}'{second}"
    if kind < 0.98:
        return f"{first} {rng.randint(2, 99)}"
    return f"{rng.choice(['Mc', 'De', 'Van', 'Mac'])}{second}"


def _cased(rng: random.Random, name: str) -> str:
    kind = rng.random()
    if kind < 0.08:
        return name.lower()
    return name.upper() if kind < 0.11 and "ß" not in name else name


def _drawn(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.08:
        return rng.choice(TOWNS)
    return _joined(rng) if kind < 0.46 else _word(rng)


def any_name(rng: random.Random, *, test: bool = False) -> str:
    """Return a name of a person, a place or a thing; with `test`, one that training never sees."""
    while True:
        name = _cased(rng, _drawn(rng))
        if held_out(name) == test:
            return name


def person_name(rng: random.Random, *, test: bool = False) -> str:
    """Return a name that is a given one in a fifth of the calls; with `test`, never one."""
    if not test and rng.random() < 0.2:
        return rng.choice([name for name in [*GIVEN, *PEOPLE] if not held_out(name)])
    return any_name(rng, test=test)
