package shard

import (
	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher/internal/telemetry"
)

var (
	entries = telemetry.Instrument{
		Kind:        telemetry.Gauge,
		Scope:       "github.com/usher-go/usher",
		Name:        "usher.cache.entries",
		Unit:        "{entry}",
		Description: "What caches keep. Entries that are out of date count until others displace them.",
		Attributes:  []*telemetry.Attribute{cacheName},
	}.Declare()
	cacheName = telemetry.Attribute{
		Name:        "usher.cache",
		Description: "What the cache keeps.",
		Values: []telemetry.Value{
			{string(APIKeys), "API keys of a store."},
			{string(UnknownAPIKeys), "Hashes of which the store has no key."},
			{string(Tokens), "JSON Web Tokens that are valid."},
			{string(IntrospectedTokens), "Opaque tokens that are valid."},
			{string(RefusedTokens), "Opaque tokens that are not valid."},
		},
	}.Declare()
)

// A Kind is what a Cache keeps, for telemetry.
type Kind string

// The kinds of caches.
const (
	APIKeys            Kind = "api_keys"
	UnknownAPIKeys     Kind = "unknown_api_keys"
	Tokens             Kind = "tokens"
	IntrospectedTokens Kind = "introspected_tokens"
	RefusedTokens      Kind = "refused_tokens"
)

// Measured makes c count its entries as those of a cache of this kind, for as long as it is
// in use. A nil provider means the global one. Measured returns c.
func (c *Cache[K, V]) Measured(p metric.MeterProvider, kind Kind) *Cache[K, V] {
	telemetry.Observe(entries, p, c, func(c *Cache[K, V]) int64 { return int64(c.Len()) }, cacheName.String(string(kind)))
	return c
}
