package main

// A section is a chapter of the page and a row of the dashboard.
type section struct {
	title string
	note  string // what to know before one adds up the figures
	// questions has each instrument of the section by its name, with the question of an
	// operator that it helps with.
	questions []question
}

type question struct{ instrument, text string }

// sections are in the order in which a request meets what they are about.
var sections = []section{
	{"Authentication", "", []question{
		{"usher.authentication.requests", "How many callers are admitted, and how many are refused?"},
		{"usher.apikey.verifications", "Why are API keys refused?"},
		{"usher.jwt.verifications", "Why are JSON Web Tokens refused?"},
		{"usher.introspection.verifications", "Why are opaque tokens refused?"},
		{"usher.session.refreshes", "Do people stay logged in, and has anybody used a stolen refresh token?"},
	}},
	{"Authorization", "", []question{
		{"usher.authorization.requests", "What do callers lack who get 403?"},
	}},
	{"Rate limits", "A request that violates two policies is counted under both, so the sum over policies is no number of " +
		"requests. Take that from the responses with 429, which otelhttp counts.", []question{
		{"usher.rate_limiting.requests", "Which policies refuse requests, and which are about to?"},
		{"usher.rate_limiting.decisions", "Which share of its requests does a policy refuse?"},
		{"usher.rate_limiting.concurrent_requests", "How many requests run under a concurrency limit?"},
	}},
	{"Idempotency", "", []question{
		{"usher.idempotency.requests", "Are retries replayed, or do they find another state of their key?"},
		{"usher.idempotency.claims", "Are the outcomes of requests stored, so that a retry is safe?"},
		{"usher.idempotency.evictions", "Is the memory for stored responses large enough?"},
	}},
	{"Envelope", "", []question{
		{"usher.envelope.panics", "Do handlers panic?"},
	}},
	{"Stores", "", []question{
		{"usher.store.operation.duration", "Which store is slow, or fails?"},
		{"usher.store.breakers.open", "Which stores are given up for the moment?"},
	}},
	{"Keys and caches", "", []question{
		{"usher.jwk.fetch.duration", "Can the keys of issuers be fetched?"},
		{"usher.introspection.request.duration", "Is the authorization server slow, and does it fail?"},
		{"usher.jwt.cache.lookups", "How many tokens need no verification?"},
		{"usher.cache.entries", "Are the caches large enough?"},
	}},
}
