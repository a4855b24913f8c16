package contest

import "time"

// Why contestants that belong in the table are missing.
const notFetched = "could not be fetched from the module proxy, in any version; not measured"

// Bases, which do no more than call the handler.
var (
	bare   = Contestant{Name: "bare", Floor: true, LeavesOut: "everything: the handler alone"}
	ginOf  = Contestant{Name: "gin-bare", Floor: true, Module: gin, LeavesOut: "everything: gin and the handler"}
	echoOf = Contestant{Name: "echo-bare", Floor: true, Module: echo5, LeavesOut: "everything: echo and the handler"}
)

// The modules that are measured.
const (
	xtime       = "golang.org/x/time"
	lru         = "github.com/hashicorp/golang-lru/v2"
	goLimiter   = "github.com/sethvargo/go-limiter"
	echo4       = "github.com/labstack/echo/v4"
	echo5       = "github.com/labstack/echo/v5"
	ulule       = "github.com/ulule/limiter/v3"
	throttled   = "github.com/throttled/throttled/v2"
	tollbooth   = "github.com/didip/tollbooth/v8"
	httprate    = "github.com/go-chi/httprate"
	echoJWT     = "github.com/labstack/echo-jwt/v5"
	ginJWT      = "github.com/appleboy/gin-jwt/v3"
	auth0v2     = "github.com/auth0/go-jwt-middleware/v2"
	auth0v3     = "github.com/auth0/go-jwt-middleware/v3"
	chiJWT      = "github.com/go-chi/jwtauth/v5"
	golangJWT   = "github.com/golang-jwt/jwt/v5"
	render      = "github.com/go-chi/render"
	huma        = "github.com/danielgtaylor/huma/v2"
	otelhttp    = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	gin         = "github.com/gin-gonic/gin"
	ginAdapter  = "github.com/gwatts/gin-adapter"
	usherModule = "github.com/usher-go/usher"
)

var rows = join(floors, limiter, tokens, keys, idempotency, envelope, stack, telemetry, adapters)

func join(groups ...[]Row) (all []Row) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

func floor(work, about string, names ...string) Row {
	r := Row{Layer: "Floor", Work: work, About: about}
	for _, name := range names {
		r.Contestants = append(r.Contestants, Contestant{Name: name, Floor: true})
	}
	return r
}

var floors = []Row{
	floor("clock", "time.Now", "go"),
	floor("mutex", "lock and unlock of a free mutex", "go"),
	floor("maphash", "hash of 16 bytes", "go"),
	floor("handler", "an empty handler through http.HandlerFunc", "go"),
	floor("context", "WithValue and WithContext, once and five times", "one", "five"),
	floor("header", "three Header.Set of formatted integers; the same as assigned slices", "set", "assigned"),
	floor("sha256", "SHA-256 of a key of 47 bytes and of a token of 400, without a copy", "47B", "400B"),
	floor("lru", "a hit in golang-lru", "hit"),
	floor("crc32", "CRC-32 of 43 bytes, as 6 base62 characters", "43B"),
	floor("counter", "counter.Add with a precomputed option set", "no-provider", "sdk"),
}

// What all other limiters leave out: they do not bound their memory, and charge one
// policy at a time.
const (
	oneLimit  = "several policies at once, a bound on memory"
	noHeaders = "header fields"
)

var limiters = []Contestant{
	{Name: Usher, Module: usherModule},
	{Name: "go-limiter", Module: goLimiter, LeavesOut: oneLimit + "; a fixed window begins at the first request"},
	{Name: "echo", Module: echo5, LeavesOut: oneLimit + "; one lock for all keys"},
	{Name: "ulule", Module: ulule, LeavesOut: oneLimit + "; refused requests are charged too"},
	{Name: "throttled", Module: throttled, LeavesOut: "several policies at once"},
	{Name: "tollbooth", Module: tollbooth, LeavesOut: oneLimit + "; only limits per second"},
	{Name: "httprate", Module: httprate, LeavesOut: oneLimit + "; an estimate over two windows"},
}

var webriots = []Missing{{"webriots/rate", notFetched + "; it shares counters between keys"}}

// rivals are all names in a list but usher and the floors.
func rivals(list []Contestant, without ...string) (names []string) {
next:
	for _, c := range list {
		for _, name := range without {
			if c.Name == name {
				continue next
			}
		}
		if c.Name != Usher && !c.Floor {
			names = append(names, c.Name)
		}
	}
	return names
}

var decision = append([]Contestant{
	{Name: "x-time-rate", Module: xtime, Floor: true, LeavesOut: "keys: one limiter for all"},
	{Name: "x-time-rate-lru", Module: lru, Floor: true, LeavesOut: "several policies, a clock that never goes back, the memory of evicted keys: x/time/rate in a sharded golang-lru"},
}, limiters...)

// limiting are the limiters as middlewares.
func limiting(base bool, names map[string]string) (list []Contestant) {
	list = append(list, bare, echoOf)
	for _, c := range limiters {
		leavesOut, ok := names[c.Name]
		if !ok {
			continue
		}
		c.Base, c.LeavesOut = "bare", leavesOut
		if c.Name == "echo" {
			c.Base = "echo-bare"
		}
		if !base {
			c.Base = ""
		}
		list = append(list, c)
	}
	return list
}

var (
	allowed = limiting(true, map[string]string{
		Usher: "", "go-limiter": "", "ulule": "", "throttled": "", "tollbooth": "the time of reset by key", "httprate": "", "echo": "the time of reset",
	})
	refused = limiting(true, map[string]string{
		Usher: "", "go-limiter": "", "ulule": "", "throttled": "", "tollbooth": "Retry-After", "httprate": "", "echo": "the time of reset",
	})
	silent = []Contestant{
		bare,
		{Name: "echo4-bare", Floor: true, Module: echo4, LeavesOut: "everything: echo v4 and the handler"},
		{Name: Usher, Base: "bare", Module: usherModule, LeavesOut: noHeaders},
		{Name: "echo4", Base: "echo4-bare", Module: echo4, LeavesOut: noHeaders + ", " + oneLimit},
	}
)

var limiter = []Row{
	{
		Layer: "LimiterDecision", Work: "hot", About: "one decision by one policy for one key",
		Contestants: decision, Missing: webriots,
		Speeds: []Speed{
			{Against: []string{"x-time-rate"}, Ratio: 0.8},
			{Against: rivals(limiters), Ratio: 0.85, StandsFor: "go-limiter, which is the quickest exact rival with keys"},
		},
		Allocs: []Allocs{{Most: 0}},
	},
	{
		Layer: "LimiterDecision", Work: "keys-10k", About: "one decision by one policy, 10,000 keys in turn",
		Contestants: decision, Missing: webriots,
		Speeds: []Speed{{Against: rivals(limiters), Ratio: 1}},
		Allocs: []Allocs{{Most: 0}},
	},
	{
		Layer: "LimiterDecision", Work: "three-policies", About: "one decision by three policies with a key each, all or nothing",
		Contestants: []Contestant{
			{Name: "x-time-rate", Module: xtime, Floor: true, LeavesOut: "keys, all or nothing: three limiters in turn"},
			{Name: Usher, Module: usherModule},
		},
		Missing: []Missing{{"all rivals", "none decides over several policies at once"}},
		Speeds:  []Speed{{Against: []string{"x-time-rate"}, Ratio: 0.6}},
		Allocs:  []Allocs{{Most: 0}},
	},
	{
		Layer: "LimiterMiddleware", Work: "allowed-with-fields", About: "a request passes and its response reports the limit",
		Contestants: allowed,
		Speeds: []Speed{
			{Against: rivals(allowed, "echo"), Ratio: 0.4, StandsFor: "all that report limit, rest and reset"},
			{Against: []string{"echo"}, Ratio: 1, StandsFor: "echo, which says less"},
		},
		Allocs: []Allocs{{Most: 2}},
	},
	{
		Layer: "LimiterMiddleware", Work: "allowed-without-fields", About: "a request passes and nothing reports the limit",
		Contestants: silent,
		Speeds:      []Speed{{Against: rivals(silent), Ratio: 0.9}},
		Allocs:      []Allocs{{Most: 0}},
	},
	{
		Layer: "LimiterMiddleware", Work: "refused", About: "a request is refused with a body",
		Contestants: refused,
		Speeds:      []Speed{{Against: rivals(refused), Ratio: 0.5}},
		Allocs:      []Allocs{{Most: 4}},
	},
}

var verifiers = []Contestant{
	bare, echoOf, ginOf,
	{Name: "raw", Floor: true, Module: golangJWT, LeavesOut: "everything but the check of the signature"},
	{Name: Usher, Base: "bare", Module: usherModule},
	{Name: "usher-uncached", Base: "bare", Module: usherModule, LeavesOut: "the memory of verified tokens"},
	{Name: "echo-jwt", Base: "echo-bare", Module: echoJWT, LeavesOut: "issuer and audience, by default"},
	{Name: "gin-jwt", Base: "gin-bare", Module: ginJWT, LeavesOut: "issuer and audience, by default"},
	{Name: "auth0-v2", Base: "bare", Module: auth0v2},
	{Name: "auth0-v3", Base: "bare", Module: auth0v3},
	{Name: "chi-jwtauth", Base: "bare", Module: chiJWT},
}

func signed(algorithm string, speeds ...Speed) Row {
	return Row{
		Layer: "JWT", Work: algorithm, About: "a request with a good token passes, " + algorithm,
		Contestants: verifiers, Speeds: speeds, Allocs: []Allocs{{Most: 1}},
	}
}

func asymmetric(algorithm string) Row {
	return signed(algorithm,
		Speed{Against: rivals(verifiers, "usher-uncached"), Ratio: 0.02},
		Speed{Of: "usher-uncached", Against: []string{"raw"}, Ratio: 1.05, Plus: 3 * time.Microsecond},
	)
}

var tokens = []Row{
	signed("HS256",
		Speed{Against: rivals(verifiers, "usher-uncached"), Ratio: 0.08},
		Speed{Of: "usher-uncached", Against: rivals(verifiers, "usher-uncached"), Ratio: 0.6},
	),
	asymmetric("RS256"), asymmetric("ES256"), asymmetric("EdDSA"),
}

const handKey = "expiry, revocation, environments, checksums, a cache, the time of last use, metrics"

var withKey = []Contestant{
	bare, echoOf,
	{Name: Usher, Base: "bare", Module: usherModule},
	{Name: "by-hand", Base: "bare", LeavesOut: handKey},
	{Name: "by-hand-tight", Base: "bare", LeavesOut: handKey},
	{Name: "echo", Base: "echo-bare", Module: echo5, LeavesOut: handKey},
}

var keys = []Row{
	{
		Layer: "APIKey", Work: "good", About: "a request with a good key passes, the handler reads who calls",
		Contestants: withKey,
		Speeds:      []Speed{{Against: []string{"by-hand"}, Ratio: 0.7}, {Against: []string{"by-hand-tight"}, Ratio: 1.05}},
		Allocs:      []Allocs{{Most: 2}},
	},
	{
		Layer: "APIKey", Work: "good-10000", About: "a request with one of 10,000 good keys in no order passes, the handler reads who calls",
		Contestants: withKey,
		Speeds:      []Speed{{Against: []string{"by-hand"}, Ratio: 0.8}},
		Allocs:      []Allocs{{Most: 2}},
	},
	{
		Layer: "APIKey", Work: "unknown", About: "a key with a right checksum that was never issued is refused with a body, again and again",
		Contestants: withKey,
		Speeds:      []Speed{{Against: []string{"by-hand"}, Ratio: 1.2}},
		Allocs:      []Allocs{{Most: 2, Guard: true}},
	},
	{
		Layer: "APIKey", Work: "garbage", About: "a key that was never issued is refused with a body",
		Contestants: withKey,
		Speeds:      []Speed{{Against: []string{"by-hand"}, Ratio: 0.8}},
		Allocs:      []Allocs{{Most: 2, Guard: true}},
	},
	{
		Layer: "APIKey", Work: "garbage-verdict", About: "a key that was never issued is recognised, without a response",
		Contestants: []Contestant{{Name: Usher, Module: usherModule}},
		Speeds: []Speed{{
			Against: []string{"Floor/sha256/47B"}, Ratio: 2.5,
			StandsFor: "200 ns on the machine where this floor takes 79 ns",
		}},
		Allocs: []Allocs{{Most: 0}},
	},
}

var once = []Contestant{
	bare,
	{Name: "by-hand", Base: "bare", Floor: true, LeavesOut: "the fingerprint, so it does not look at the body; the caller and the route, bounds on memory, leases, metrics"},
	{Name: Usher, Base: "bare", Module: usherModule},
	{Name: "by-hand-fingerprint", Base: "bare", LeavesOut: "the caller and the route, bounds on memory, leases, metrics"},
}

var missingOnce = []Missing{
	{"bright-room/idem", notFetched},
	{"AnandSundar/go-idempotency", notFetched},
}

// The targets name bright-room/idem, which takes no fingerprint but copies each
// body several times. Its replacement must not do less than usher, as the comparison
// would then punish usher for its fingerprint.
const forIdem = "bright-room/idem, which could not be fetched, by the same work by hand"

var idempotency = []Row{
	{
		Layer: "Idempotency", Work: "first-100B", About: "a first request of 100 bytes runs, its response of as many is kept",
		Contestants: once, Missing: missingOnce,
		Speeds: []Speed{{Against: rivals(once), Ratio: 1, StandsFor: forIdem}},
		Allocs: []Allocs{{Most: 4, Guard: true}},
	},
	{
		Layer: "Idempotency", Work: "first-16KiB", About: "a first request of 16 KiB runs, its response of as many is kept",
		Contestants: once, Missing: missingOnce,
		Speeds: []Speed{{Against: rivals(once), Ratio: 1, StandsFor: forIdem + ", which hashes 16 KiB as well: so 1 and not 1.6"}},
		Allocs: []Allocs{{Most: 4, Guard: true}},
	},
	{
		Layer: "Idempotency", Work: "replay-100B", About: "a repetition gets the first response of 100 bytes",
		Contestants: once, Missing: missingOnce,
		Speeds: []Speed{{Against: rivals(once), Ratio: 0.6, StandsFor: forIdem}},
		Allocs: []Allocs{{Most: 4}},
	},
	{
		Layer: "Idempotency", Work: "replay-16KiB", About: "a repetition gets the first response of 16 KiB",
		Contestants: once, Missing: missingOnce,
		Speeds: []Speed{{Against: rivals(once), Ratio: 1, StandsFor: forIdem}},
		Allocs: []Allocs{{Most: 4}},
	},
}

var writers = []Contestant{
	echoOf,
	{Name: "chi-bare", Floor: true, Module: "github.com/go-chi/chi/v5", LeavesOut: "everything: chi, the router below huma"},
	bare,
	{Name: "json-data", Base: "bare", Floor: true, LeavesOut: "the envelope: json.Marshal of the data alone"},
	{Name: Usher, Base: "bare", Module: usherModule},
	{Name: "encoding-json", Base: "bare", LeavesOut: "request IDs, bounds on what is repeated of the request, responses of others"},
	{Name: "echo", Base: "echo-bare", Module: echo5, LeavesOut: "request IDs, bounds on what is repeated of the request, responses of others"},
	{Name: "chi-render", Base: "bare", Module: render, LeavesOut: "request IDs, bounds on what is repeated of the request, responses of others"},
	{Name: "huma", Base: "chi-bare", Module: huma, LeavesOut: "request IDs, bounds on what is repeated of the request, responses of others"},
}

var wrappers = []Contestant{
	bare,
	{Name: "append", Floor: true, LeavesOut: "everything but a prefix and a suffix that are appended in one buffer"},
	{Name: Usher, Base: "bare", Module: usherModule},
	{Name: "decode-encode", Base: "bare", LeavesOut: "request IDs, streams, ranges, errors"},
}

var envelope = []Row{
	{
		Layer: "Envelope", Work: "explicit-200B", About: "a handler responds with a value of 200 bytes in the standard envelope",
		Contestants: writers,
		Speeds:      []Speed{{Against: rivals(writers), Ratio: 0.75}},
		Allocs:      []Allocs{{Most: 2}},
	},
	{
		Layer: "Envelope", Work: "explicit-16KiB", About: "a handler responds with a value of 16 KiB in the standard envelope",
		Contestants: writers,
		Speeds:      []Speed{{Against: []string{"json-data"}, Ratio: 1.05}},
		Allocs:      []Allocs{{Most: 3, Guard: true}},
	},
	{
		Layer: "Envelope", Work: "wrap-200B", About: "200 bytes of JSON that a handler writes are put into the standard envelope",
		Contestants: wrappers,
		Speeds: []Speed{
			{Against: []string{"Floor/context/one"}, Ratio: 2, StandsFor: "400 ns beside one copy of the request, where that takes 390 ns"},
			{Against: rivals(wrappers), Ratio: 1},
		},
		Allocs: []Allocs{{Most: 3}},
	},
	{
		Layer: "Envelope", Work: "wrap-16KiB", About: "16 KiB of JSON that a handler writes are put into the standard envelope",
		Contestants: wrappers,
		Speeds: []Speed{
			{Against: []string{"Floor/context/one"}, Ratio: 4, StandsFor: "1.2 us beside one copy of the request, where that takes 390 ns"},
			{Against: rivals(wrappers), Ratio: 1},
		},
		Allocs: []Allocs{{Most: 3}},
	},
}

func whole(work, about string, ratio float64, allocs ...Allocs) Row {
	return Row{
		Layer: "Stack", Work: work, About: about,
		Contestants: []Contestant{
			{Name: "bare", Floor: true, LeavesOut: "everything: router and handler"},
			{Name: Usher, Base: "bare", Module: usherModule},
			{Name: "today", Base: "bare", LeavesOut: "metrics, an envelope around refusals, one decision over both limits, a bound on memory, the caller in idempotency keys, request IDs"},
		},
		Speeds: []Speed{{Against: []string{"today"}, Ratio: ratio}},
		Allocs: allocs,
	}
}

var stack = []Row{
	whole("get-key", "a whole stack: key, limits of everybody and of the route, idempotency that is not asked for, envelope", 0.25, Allocs{Most: 5}),
	whole("get-jwt", "a whole stack: token, limits of everybody and of the route, idempotency that is not asked for, envelope", 0.05, Allocs{Most: 3}),
	whole("post-key", "a whole stack: key, limits of everybody and of the route, a first request with an idempotency key, envelope", 0.5, Allocs{Most: 6, Guard: true}),
}

// Telemetry is what five decisions add to a request when they are counted and noted
// on the span, and what otelhttp adds beside. The part of usher that every package
// of it records with is measured by itself, as what it adds would be lost in the
// noise of five whole middlewares.
var telemetry = []Row{
	{
		Layer: "Telemetry", Work: "no-provider", About: "five decisions are recorded while nobody listens",
		Contestants: []Contestant{
			bare,
			{Name: Usher, Base: "bare", Module: usherModule},
			{Name: "otelhttp", Base: "bare", Module: otelhttp, LeavesOut: "decisions: it reports the request as a whole"},
		},
		Speeds: []Speed{{Against: []string{"otelhttp"}, Ratio: 100.0 / 2600, StandsFor: "100 ns where otelhttp adds 2.6 us"}},
		Allocs: []Allocs{{Most: 0}},
	},
	{
		Layer: "Telemetry", Work: "sdk-sampled", About: "five decisions are recorded with an SDK, in a sampled server span of otelhttp",
		Contestants: []Contestant{
			bare,
			{Name: Usher, Base: "otelhttp", Module: usherModule},
			{Name: "otelhttp", Base: "bare", Module: otelhttp, LeavesOut: "decisions: it reports the request as a whole"},
		},
		Speeds: []Speed{{Against: []string{"otelhttp"}, Ratio: 4.0 / 9, StandsFor: "4 us where otelhttp adds 9 us"}},
		Allocs: []Allocs{{Most: 0}},
	},
}

func adapter(work, router, module, base, rival, rivalModule string, most int) Row {
	return Row{
		Layer: "Adapter", Work: work, About: "a middleware that neither wraps nor copies, in " + router,
		Contestants: []Contestant{
			{Name: base, Floor: true, Module: module, LeavesOut: "everything: the router and the handler"},
			{Name: "native", Base: base, Floor: true, LeavesOut: "the adapter: a middleware of the router itself"},
			{Name: Usher, Base: base, Module: usherModule},
			{Name: rival, Base: base, Module: rivalModule, LeavesOut: "errors and responses that the router writes later"},
		},
		Speeds: []Speed{{Against: []string{rival}, Ratio: 1}},
		Allocs: []Allocs{{Most: most}},
	}
}

var adapters = []Row{
	adapter("gin", "gin", gin, "gin-bare", "gin-adapter", ginAdapter, 0),
	adapter("echo", "echo v5", echo5, "echo-bare", "wrap-middleware", echo5, 0),
	adapter("echo4", "echo v4", echo4, "echo4-bare", "wrap-middleware", echo4, 1),
}
