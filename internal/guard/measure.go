package guard

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/metric"

	"github.com/usher-go/usher/internal/telemetry"
)

const telemetryScope = "github.com/usher-go/usher"

var (
	storeDuration = telemetry.Instrument{
		Kind:  telemetry.Histogram,
		Scope: telemetryScope,
		Name:  "usher.store.operation.duration",
		Unit:  "s",
		Description: "How long operations of stores outside the process take, with the wait for a place among the calls that run. " +
			"It ends with the timeout.",
		Attributes: []*telemetry.Attribute{storeName, storeOperation, telemetry.CallFailure},
		Buckets:    telemetry.Durations,
	}.Declare()
	storesOpen = telemetry.Instrument{
		Kind:  telemetry.Gauge,
		Scope: telemetryScope,
		Name:  "usher.store.breakers.open",
		Unit:  "{breaker}",
		Description: "Circuit breakers of stores that are open: most calls have failed, so all fail at once, " +
			"except that one each second probes the store.",
		Attributes: []*telemetry.Attribute{storeName},
	}.Declare()
	storeName = telemetry.Attribute{
		Name:        "usher.store",
		Description: "What the store keeps.",
		Values: []telemetry.Value{
			{string(APIKeys), "API keys."},
			{string(Idempotency), "Idempotency keys and responses."},
			{string(Limits), "What is used of rate limits."},
			{string(Revocations), "Revoked tokens."},
			{string(Sessions), "Sessions."},
		},
	}.Declare()
	storeOperation = telemetry.Attribute{
		Name:        "usher.store.operation",
		Description: "The operation, named like the method of the store.",
	}.Declare()
)

// A Store is the kind of a store, for telemetry.
type Store string

// The kinds of stores.
const (
	APIKeys     Store = "api_keys"
	Idempotency Store = "idempotency"
	Limits      Store = "limits"
	Revocations Store = "revocations"
	Sessions    Store = "sessions"
)

// Measured makes g measure its calls as those of a store of this kind, and whether it is
// open. A nil provider means the global one. Measured returns g, and must be called before
// the first call.
func (g *Guard) Measured(p metric.MeterProvider, kind Store) *Guard {
	name := storeName.String(string(kind))
	g.durations = storeDuration.Timer(p, storeOperation, name)
	if g.breaker != nil {
		telemetry.Observe(storesOpen, p, g.breaker, (*breaker).opened, name)
	}
	return g
}

// opened returns 1 if b is open.
func (b *breaker) opened() int64 {
	if b.isOpen() {
		return 1
	}
	return 0
}

// errorType returns the error.type of a call for ctx that returned err.
func (g *Guard) errorType(ctx context.Context, err error) string {
	cause := context.Cause(ctx) // nil if ctx has not ended
	_, panicked := errors.AsType[*PanicError](err)
	switch {
	case err == nil:
		return ""
	case errors.Is(err, ErrCorrupt):
		return telemetry.Corrupt
	case g.isResult(err) && (cause == nil || !errors.Is(err, cause)):
		return ""
	case errors.Is(err, ErrOpen):
		return telemetry.Open
	case errors.Is(err, ErrBusy):
		return telemetry.Busy
	case errors.Is(err, ErrFull):
		return telemetry.Full
	case errors.Is(err, ErrClosed):
		return telemetry.Closed
	case errors.Is(err, ErrTimeout):
		return telemetry.Timeout
	case cause != nil && errors.Is(err, cause):
		return telemetry.Canceled
	case panicked:
		return telemetry.Panic
	default:
		return telemetry.CallFailureOf(ctx, err)
	}
}
