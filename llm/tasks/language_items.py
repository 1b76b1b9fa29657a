"""The words of the language suite, written for it: six relations, each a thing and what it becomes, and texts that are only read.

``thing: what it becomes; ...``. Things with several right answers in common use were left out, and so were those that
stay as they are. A word of `OPPOSITES` is in one pair alone, which is asked in both directions.
"""

from __future__ import annotations

PLURALS = """
cat: cats; dog: dogs; book: books; car: cars; tree: trees; house: houses; river: rivers; table: tables; chair: chairs;
apple: apples; bird: birds; window: windows; door: doors; flower: flowers; garden: gardens; king: kings; queen: queens;
letter: letters; road: roads; stone: stones; train: trains; ship: ships; cloud: clouds; star: stars; bridge: bridges;
horse: horses; nurse: nurses; rose: roses; prize: prizes; judge: judges; teacher: teachers; doctor: doctors;
farmer: farmers; singer: singers; brother: brothers; sister: sisters; mountain: mountains; island: islands;
village: villages; picture: pictures; pencil: pencils; bottle: bottles; candle: candles; button: buttons; basket: baskets;
box: boxes; fox: foxes; tax: taxes; bus: buses; glass: glasses; class: classes; dress: dresses; kiss: kisses;
church: churches; watch: watches; match: matches; beach: beaches; branch: branches; lunch: lunches; sandwich: sandwiches;
dish: dishes; brush: brushes; wish: wishes; bush: bushes; city: cities; baby: babies; lady: ladies; story: stories;
country: countries; family: families; party: parties; berry: berries; cherry: cherries; puppy: puppies; pony: ponies;
army: armies; enemy: enemies; factory: factories; library: libraries; butterfly: butterflies; body: bodies; copy: copies;
boy: boys; toy: toys; key: keys; day: days; monkey: monkeys; donkey: donkeys; valley: valleys; turkey: turkeys;
chimney: chimneys; potato: potatoes; tomato: tomatoes; hero: heroes; echo: echoes; piano: pianos; photo: photos;
radio: radios; studio: studios; kangaroo: kangaroos; knife: knives; wife: wives; life: lives; leaf: leaves; wolf: wolves;
shelf: shelves; half: halves; calf: calves; loaf: loaves; thief: thieves; elf: elves; roof: roofs; chief: chiefs;
belief: beliefs; cliff: cliffs; man: men; woman: women; child: children; foot: feet; tooth: teeth; goose: geese;
mouse: mice; ox: oxen; analysis: analyses; crisis: crises; oasis: oases; hypothesis: hypotheses; lamp: lamps;
spoon: spoons; hat: hats; cake: cakes; egg: eggs; lion: lions; tiger: tigers; frog: frogs; uncle: uncles; aunt: aunts
"""

CAPITALS = """
France: Paris; Germany: Berlin; Italy: Rome; Spain: Madrid; Portugal: Lisbon; Austria: Vienna; Belgium: Brussels;
the Netherlands: Amsterdam; Denmark: Copenhagen; Norway: Oslo; Sweden: Stockholm; Finland: Helsinki; Iceland: Reykjavik;
Ireland: Dublin; the United Kingdom: London; Poland: Warsaw; the Czech Republic: Prague; Slovakia: Bratislava;
Hungary: Budapest; Romania: Bucharest; Bulgaria: Sofia; Greece: Athens; Albania: Tirana; Serbia: Belgrade; Croatia: Zagreb;
Slovenia: Ljubljana; North Macedonia: Skopje; Montenegro: Podgorica; Estonia: Tallinn; Latvia: Riga; Lithuania: Vilnius;
Belarus: Minsk; Ukraine: Kyiv; Russia: Moscow; Moldova: Chisinau; Switzerland: Bern; Malta: Valletta; Cyprus: Nicosia;
Turkey: Ankara; Georgia: Tbilisi; Armenia: Yerevan; Azerbaijan: Baku; Syria: Damascus; Lebanon: Beirut; Jordan: Amman;
Iraq: Baghdad; Iran: Tehran; Saudi Arabia: Riyadh; Qatar: Doha; Oman: Muscat; the United Arab Emirates: Abu Dhabi;
Bahrain: Manama; Afghanistan: Kabul; Pakistan: Islamabad; India: New Delhi; Nepal: Kathmandu; Bhutan: Thimphu;
Bangladesh: Dhaka; Thailand: Bangkok; Laos: Vientiane; Cambodia: Phnom Penh; Vietnam: Hanoi; Malaysia: Kuala Lumpur;
the Philippines: Manila; China: Beijing; Mongolia: Ulaanbaatar; Japan: Tokyo; South Korea: Seoul; North Korea: Pyongyang;
Uzbekistan: Tashkent; Kyrgyzstan: Bishkek; Tajikistan: Dushanbe; Turkmenistan: Ashgabat; Egypt: Cairo; Libya: Tripoli;
Tunisia: Tunis; Algeria: Algiers; Morocco: Rabat; Sudan: Khartoum; Ethiopia: Addis Ababa; Eritrea: Asmara;
Somalia: Mogadishu; Kenya: Nairobi; Uganda: Kampala; Rwanda: Kigali; Zambia: Lusaka; Zimbabwe: Harare; Malawi: Lilongwe;
Mozambique: Maputo; Madagascar: Antananarivo; Angola: Luanda; Namibia: Windhoek; Botswana: Gaborone; Lesotho: Maseru;
Nigeria: Abuja; Ghana: Accra; Senegal: Dakar; Mali: Bamako; Niger: Niamey; Chad: N'Djamena; Cameroon: Yaounde;
Gabon: Libreville; Togo: Lome; Liberia: Monrovia; Sierra Leone: Freetown; Guinea: Conakry; the Gambia: Banjul;
Burkina Faso: Ouagadougou; Canada: Ottawa; the United States: Washington, D.C.; Mexico: Mexico City; Cuba: Havana;
Jamaica: Kingston; Haiti: Port-au-Prince; the Dominican Republic: Santo Domingo; the Bahamas: Nassau;
Honduras: Tegucigalpa; Nicaragua: Managua; Costa Rica: San Jose; Panama: Panama City; El Salvador: San Salvador;
Guatemala: Guatemala City; Belize: Belmopan; Colombia: Bogota; Venezuela: Caracas; Ecuador: Quito; Peru: Lima;
Chile: Santiago; Argentina: Buenos Aires; Uruguay: Montevideo; Paraguay: Asuncion; Brazil: Brasilia; Guyana: Georgetown;
Suriname: Paramaribo; Australia: Canberra; New Zealand: Wellington; Fiji: Suva; Samoa: Apia; Tonga: Nuku'alofa;
Papua New Guinea: Port Moresby; Vanuatu: Port Vila
"""

OPPOSITES = """
hot: cold; big: small; tall: short; fast: slow; light: dark; good: bad; happy: sad; rich: poor; young: old; hard: soft;
high: low; open: closed; full: empty; wet: dry; clean: dirty; strong: weak; early: late; near: far; up: down; left: right;
in: out; inside: outside; above: below; before: after; always: never; day: night; love: hate; war: peace; life: death;
north: south; east: west; win: lose; buy: sell; push: pull; give: take; start: finish; come: go; laugh: cry;
remember: forget; increase: decrease; accept: reject; arrive: depart; attack: defend; success: failure; victory: defeat;
friend: enemy; hero: villain; question: answer; entrance: exit; top: bottom; front: back; first: last; true: false;
alive: dead; awake: asleep; brave: cowardly; cheap: expensive; deep: shallow; wide: narrow; thick: thin;
loud: quiet; smooth: rough; sharp: blunt; straight: crooked; tight: loose; polite: rude; possible: impossible;
visible: invisible; ancient: modern; public: private; simple: complex; safe: dangerous; generous: stingy; guilty: innocent;
major: minor; maximum: minimum; positive: negative; single: married; optimistic: pessimistic
"""

PAST_TENSES = """
go: went; see: saw; eat: ate; run: ran; come: came; give: gave; take: took; make: made; say: said; get: got; know: knew;
think: thought; find: found; tell: told; become: became; leave: left; feel: felt; bring: brought; begin: began; keep: kept;
hold: held; write: wrote; stand: stood; hear: heard; mean: meant; meet: met; pay: paid; sit: sat; speak: spoke; lead: led;
grow: grew; lose: lost; fall: fell; send: sent; build: built; understand: understood; draw: drew; break: broke;
spend: spent; rise: rose; drive: drove; buy: bought; wear: wore; choose: chose; sing: sang; swim: swam; drink: drank;
ring: rang; fly: flew; throw: threw; blow: blew; catch: caught; teach: taught; fight: fought; seek: sought; sleep: slept;
sweep: swept; win: won; ride: rode; hide: hid; bite: bit; forget: forgot; freeze: froze; steal: stole; shake: shook;
sell: sold; feed: fed; dig: dug; stick: stuck; swing: swung; sink: sank; shoot: shot; lend: lent; bend: bent; tear: tore;
swear: swore; forgive: forgave; walk: walked; talk: talked; play: played; work: worked; ask: asked; call: called;
need: needed; want: wanted; look: looked; help: helped; start: started; open: opened; turn: turned; move: moved; live: lived;
love: loved; like: liked; hope: hoped; dance: danced; close: closed; use: used; smile: smiled; save: saved; bake: baked;
study: studied; carry: carried; cry: cried; try: tried; hurry: hurried; marry: married; copy: copied; worry: worried;
stop: stopped; plan: planned; drop: dropped; shop: shopped; jog: jogged; clap: clapped; hug: hugged; rob: robbed; beg: begged;
wash: washed; watch: watched; push: pushed; pull: pulled; clean: cleaned; cook: cooked; paint: painted; rain: rained;
laugh: laughed; listen: listened; answer: answered; visit: visited; enjoy: enjoyed; wait: waited; climb: climbed;
finish: finished; jump: jumped
"""

COLORS = """
snow: white; milk: white; salt: white; chalk: white; cotton: white; flour: white; a polar bear: white; a swan: white;
cooked rice: white; a pearl: white; ivory: white; a tooth: white; sugar: white; vanilla ice cream: white;
a wedding dress: white; a golf ball: white; a snowman: white; a cauliflower: white; mayonnaise: white; a dove: white;
coal: black; tar: black; a crow: black; a raven: black; ink: black; the night sky: black; a panther: black; soot: black;
a tire: black; an olive: black; licorice: black; charcoal: black; a bowling ball: black; a witch's hat: black;
asphalt: black; a hockey puck: black; a tuxedo: black; a bat: black; grass: green; a leaf: green;
a frog: green; a cucumber: green; spinach: green; a lime: green; broccoli: green; a cactus: green; an emerald: green;
a pea: green; lettuce: green; a crocodile: green; a grasshopper: green; moss: green; a fern: green; parsley: green;
a pine needle: green; an avocado: green; kale: green; celery: green; a shamrock: green; a pickle: green; a zucchini: green;
seaweed: green; mint: green; basil: green; the sky: blue; the ocean: blue; a sapphire: blue; a blueberry: blue; denim: blue;
a bluebird: blue; a blue jay: blue; cobalt: blue; lapis lazuli: blue; a cornflower: blue; a lake: blue;
a bluebell: blue; a mailbox: blue; a banana: yellow; a lemon: yellow; the sun: yellow; butter: yellow; corn: yellow;
mustard: yellow; a canary: yellow; a sunflower: yellow; a daffodil: yellow; a school bus: yellow; a taxi: yellow;
an egg yolk: yellow; a chick: yellow; a rubber duck: yellow; a pineapple: yellow; sulfur: yellow; a dandelion: yellow;
a buttercup: yellow; a highlighter: yellow; saffron: yellow; blood: red; a strawberry: red; a tomato: red; a fire truck: red;
a ruby: red; a cherry: red; a stop sign: red; ketchup: red; a raspberry: red; a cardinal: red; a ladybug: red; a rose: red;
a cranberry: red; a brick: red; lava: red; a lobster: red; a heart: red; a radish: red; a fire hydrant: red; a poppy: red;
a pomegranate: red; Mars: red; rust: red; a carrot: orange; an orange: orange; a pumpkin: orange; a tangerine: orange;
a basketball: orange; a traffic cone: orange; a goldfish: orange; an apricot: orange; a sweet potato: orange;
a mandarin: orange; a clownfish: orange; cheddar cheese: orange; a papaya: orange; chocolate: brown; coffee: brown;
wood: brown; a bear: brown; soil: brown; mud: brown; a walnut: brown; cinnamon: brown; bark: brown; a coconut: brown;
caramel: brown; a chestnut: brown; leather: brown; cocoa: brown; a beaver: brown; toast: brown; gravy: brown; an acorn: brown;
a grape: purple; lavender: purple; an eggplant: purple; a plum: purple; an amethyst: purple; a violet: purple;
a beet: purple; a flamingo: pink; a pig: pink; bubble gum: pink; cotton candy: pink; a salmon fillet: pink;
an elephant: gray; a rhinoceros: gray; a dolphin: gray; ash: gray; concrete: gray; lead: gray; a storm cloud: gray;
a mouse: gray; a shark: gray; cement: gray
"""

COMPARATIVES = """
good: better; bad: worse; big: bigger; small: smaller; tall: taller; short: shorter; fast: faster; slow: slower; hot: hotter;
cold: colder; warm: warmer; cool: cooler; long: longer; high: higher; low: lower; deep: deeper; wide: wider; thick: thicker;
thin: thinner; fat: fatter; young: younger; old: older; new: newer; rich: richer; poor: poorer; strong: stronger; weak: weaker;
hard: harder; soft: softer; loud: louder; sweet: sweeter; sour: sourer; fresh: fresher; clean: cleaner; dark: darker;
light: lighter; bright: brighter; near: nearer; late: later; large: larger; nice: nicer; safe: safer; brave: braver;
wise: wiser; rare: rarer; cheap: cheaper; kind: kinder; smart: smarter; great: greater; sharp: sharper; smooth: smoother;
rough: rougher; tight: tighter; loose: looser; steep: steeper; quick: quicker; wet: wetter; sad: sadder; red: redder;
happy: happier; busy: busier; easy: easier; early: earlier; heavy: heavier; pretty: prettier; funny: funnier; dirty: dirtier;
lucky: luckier; hungry: hungrier; angry: angrier; noisy: noisier; lazy: lazier; crazy: crazier; tiny: tinier; ugly: uglier;
healthy: healthier; wealthy: wealthier; windy: windier; sunny: sunnier; cloudy: cloudier; rainy: rainier;
dry: drier; salty: saltier; juicy: juicier; spicy: spicier; tasty: tastier; shiny: shinier; sleepy: sleepier; silly: sillier;
scary: scarier; muddy: muddier; icy: icier; beautiful: more beautiful; expensive: more expensive; difficult: more difficult;
important: more important; interesting: more interesting; dangerous: more dangerous; comfortable: more comfortable;
famous: more famous; popular: more popular; careful: more careful; useful: more useful; modern: more modern;
delicious: more delicious; exciting: more exciting; intelligent: more intelligent; patient: more patient;
powerful: more powerful; generous: more generous; curious: more curious; nervous: more nervous; serious: more serious;
colorful: more colorful; peaceful: more peaceful; creative: more creative; valuable: more valuable; reliable: more reliable;
ambitious: more ambitious; complicated: more complicated; fair: fairer; firm: firmer; grand: grander; mild: milder; plain: plainer;
proud: prouder; rude: ruder; strange: stranger; calm: calmer; clear: clearer; close: closer; dull: duller; fine: finer; tough: tougher
"""

CLOZES = """
The capital of France is: Paris; The capital of Japan is the city of: Tokyo; The sun rises in the: east;
The sun sets in the: west; A week has seven: days; A year has twelve: months; An hour has sixty: minutes;
Water freezes at zero degrees: Celsius; The largest ocean on Earth is the: Pacific; The largest planet in our solar system is: Jupiter;
The planet closest to the sun is: Mercury; Humans breathe in oxygen and breathe out carbon: dioxide; Bees make: honey;
The opposite of hot is: cold; Two plus two equals: four; Once upon a: time; A spider has eight: legs;
The author of Romeo and Juliet is William: Shakespeare; The first month of the year is: January;
The last month of the year is: December; The day after Monday is: Tuesday; The day before Sunday is: Saturday;
The Great Wall is in: China; The Eiffel Tower is in: Paris; The pyramids of Giza are in: Egypt;
The currency of the United States is the: dollar; The first president of the United States was George: Washington;
The theory of relativity was developed by Albert: Einstein; The Mona Lisa was painted by Leonardo da: Vinci;
The human heart pumps: blood; Plants need water and sunlight to: grow; Better late than: never; Actions speak louder than: words;
Practice makes: perfect; Honesty is the best: policy; The early bird catches the: worm; Rome was not built in a: day;
The United States of: America; The United Kingdom of Great Britain and Northern: Ireland; The boiling point of water is 100 degrees: Celsius;
The moon orbits the: Earth; The Earth revolves around the: Sun; Penguins live in the Southern: Hemisphere;
A baby dog is called a: puppy; A baby cat is called a: kitten; The tallest animal in the world is the: giraffe;
Cows give us: milk; Chickens lay: eggs; The colors of the flag of Japan are white and: red;
Shakespeare wrote Romeo and: Juliet; The Atlantic: Ocean; The Statue of: Liberty; New York: City; The Second World: War;
Adam and: Eve; Salt and: pepper; Black and: white; Day and: night; Ladies and: gentlemen; Fish and: chips
"""

TEXTS = tuple(
    " ".join(text.split())
    for text in """
The kitchen was warm in the morning. My grandmother had lit the stove before anyone else was awake, and the smell of
bread came up the stairs. We sat at the long table and waited until she cut the first slice.

A river carries more than water. It carries sand, leaves and small stones, and where it slows down it drops them.
After many years the dropped sand becomes an island on which grass and then trees begin to grow.

The train was late, so the two men began to talk. One of them repaired clocks and the other taught history at a
school. They found that they had grown up in the same street, twenty years apart.

To repair a bicycle tire, take off the wheel and pull out the inner tube. Pump some air into it and hold it under
water: bubbles show where the hole is. Dry the tube, make the place rough, and press a patch on it.

Wolves live in packs that are mostly families. The parents lead, and the older pups help to feed the younger ones.
When a young wolf is two or three years old it leaves to look for a place and a partner of its own.

The bank lends money that other people have saved. It pays the savers a little interest and asks a little more of
those who borrow. What remains between the two pays for the building, the staff and the loans that are never returned.

In the autumn the village prepares for the cold. Wood is stacked against the walls, apples are laid on straw in the
cellar, and the last hay is brought in. By the first snow everything that can be eaten or burned has its place.

Light from the sun needs about eight minutes to reach the earth. If the sun went out, we would go on seeing it for
that long, and nothing in the sky would tell us that anything had happened.

She had never been on a ship before. The first day she stayed in her cabin and was sick; the second day she went on
deck and watched the birds; the third day she asked the captain to explain the instruments.

A good map leaves things out. If every path, wall and tree were drawn, nobody could find the road. The maker has to
decide what the reader is looking for, and be silent about the rest.

The committee met on Tuesday to discuss the new library. Some members wanted a larger hall for children, others more
quiet rooms for reading. In the end they agreed to ask the people who would use it.

When iron is left in the rain it turns red and soft. The metal joins with oxygen from the air and with water, and what
is left is rust. Paint, oil or a thin layer of zinc keeps the air away and the iron whole.

He wrote a letter to his brother every Sunday, even when there was little to tell. He wrote about the weather, the
price of eggs and the dog next door. Years later the letters were the best history of the town.

Bees tell each other where flowers are by dancing. The direction of the dance shows the way, measured from the sun,
and its length shows how far one has to fly. The other bees follow the dancer in the dark of the hive and then leave.

The old bridge had three arches of grey stone. In spring the water rose so high that only the tops of the arches could
be seen, and children threw sticks from one side and ran across to see whose came out first.

Before you plant a tree, look at the place at noon and in the evening. A tree that wants sun will not grow in the
shadow of a wall, and one that likes water will suffer on a dry hill. A little patience at the start saves many years.
""".strip().split("\n\n")
)
"""Sixteen short texts of plain prose: what a model reads without being asked anything."""


def read_items(text: str) -> tuple[tuple[str, str], ...]:
    """Pairs (thing, what it becomes) of one of the lists above."""
    lines = " ".join(text.split()).split(";")
    pairs = (line.rpartition(":") if line.count(":") > 1 else line.partition(":") for line in lines)
    return tuple((thing.strip(), becomes.strip()) for thing, _, becomes in pairs)
