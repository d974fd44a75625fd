"""The topics that all platforms share, and the words that their items are named with."""

# Topic → words that describe and words that name; a title is "Alpine hiking boots kit": describing, topic, naming, noun.
TOPICS: dict[str, tuple[list[str], list[str]]] = {
    "hiking": (["Alpine", "Rugged", "Summit", "Ridge"], ["boots", "trail", "rucksack", "tent"]),
    "baking": (["Crusty", "Golden", "Sourdough", "Buttery"], ["bread", "oven", "dough", "pastry"]),
    "jazz": (["Swinging", "Smoky", "Modal", "Improvised"], ["saxophone", "quartet", "trumpet", "standard"]),
    "gardening": (["Blooming", "Organic", "Potted", "Perennial"], ["seeds", "trowel", "tulips", "compost"]),
    "cycling": (["Aerodynamic", "Gravel", "Steep", "Carbon"], ["pedal", "saddle", "wheel", "peloton"]),
    "astronomy": (["Stellar", "Lunar", "Cosmic", "Distant"], ["telescope", "galaxy", "nebula", "comet"]),
    "chess": (["Bold", "Positional", "Endgame", "Royal"], ["opening", "knight", "checkmate", "gambit"]),
    "painting": (["Vivid", "Abstract", "Layered", "Impressionist"], ["canvas", "brush", "palette", "watercolour"]),
    "fishing": (["Freshwater", "Patient", "Coastal", "Barbed"], ["rod", "trout", "lure", "reel"]),
    "yoga": (["Mindful", "Gentle", "Flowing", "Balanced"], ["mat", "posture", "breath", "stretch"]),
    "coffee": (["Roasted", "Dark", "Creamy", "Filtered"], ["espresso", "beans", "grinder", "latte"]),
    "sailing": (["Windward", "Nautical", "Offshore", "Salty"], ["mast", "rudder", "anchor", "regatta"]),
    "photography": (["Monochrome", "Panoramic", "Sharp", "Backlit"], ["camera", "lens", "tripod", "portrait"]),
    "robotics": (["Autonomous", "Jointed", "Programmable", "Tiny"], ["servo", "sensor", "gripper", "drone"]),
    "knitting": (["Woollen", "Cosy", "Cabled", "Handspun"], ["yarn", "needles", "scarf", "jumper"]),
    "climbing": (["Vertical", "Overhanging", "Granite", "Chalky"], ["harness", "rope", "boulder", "carabiner"]),
    "opera": (["Dramatic", "Lyric", "Tragic", "Baroque"], ["aria", "soprano", "overture", "libretto"]),
    "history": (["Ancient", "Medieval", "Imperial", "Forgotten"], ["empire", "archive", "castle", "treaty"]),
    "pottery": (["Glazed", "Wheelthrown", "Earthen", "Rustic"], ["clay", "kiln", "vase", "stoneware"]),
    "surfing": (["Tropical", "Barreling", "Longboard", "Sunny"], ["wave", "wetsuit", "lagoon", "fin"]),
    "woodwork": (["Oaken", "Dovetailed", "Polished", "Handmade"], ["chisel", "bench", "plane", "joinery"]),
    "birding": (["Migratory", "Feathered", "Nesting", "Songful"], ["binoculars", "owl", "heron", "feeder"]),
    "poetry": (["Lyrical", "Rhymed", "Haunting", "Collected"], ["sonnet", "verse", "haiku", "stanza"]),
    "running": (["Swift", "Cushioned", "Marathon", "Breathable"], ["sneakers", "sprint", "interval", "tracksuit"]),
}

BRANDS = ["Arbor", "Bellwether", "Cinder", "Delphi", "Emberly", "Fathom", "Grove", "Halcyon", "Ivory", "Juniper", "Kestrel"]
