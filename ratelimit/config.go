package ratelimit

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
)

// Config configures a [Limiter]. Policies are required.
type Config struct {
	// Policies are decided together: a request is admitted if its cost fits under all
	// of them, and a refused request is charged to none. At most 16.
	Policies []Policy
	// Store keeps the counters; nil means a [Memory] of its own. While a store that
	// processes share is deciding, other decisions of this process about the same keys,
	// limits and costs wait for at most a quarter of StoreTimeout, and then go to it as one
	// call. Each gets the result of a call of its own. Policies with Shadow or a
	// [Concurrency] limit have a call for each decision.
	Store Store
	// OnStoreFailure chooses what happens while the store fails. The zero value is
	// [FallBackToMemory].
	OnStoreFailure FailureMode
	// StoreTimeout is how long a decision may wait for the store; zero means 100
	// milliseconds. It holds even if the store ignores its context. At most 128 decisions
	// call the store at a time, including calls that hang; 16 times as many may wait for
	// their turn, for at most half the timeout.
	//
	// What a request has not used is refunded in the background, so that its response does
	// not wait for the store: places, and charges under policies with Count or Settle. A
	// decision waits for the refunds of its keys that this process is making, within the
	// timeout and for at most half of it. See [Limiter.Shutdown].
	//
	// If, of at least 10 calls within 2 seconds, half have timed out or four in five have
	// failed, decisions stop calling the store, except for one a second, until a call
	// succeeds. None of this applies to a Memory, which does not wait.
	StoreTimeout time.Duration
	// Lease is how long two things outlast this process in Store if it dies: a place of a
	// [Concurrency] limit, and what a request has reserved under a policy with Settle. Both are
	// renewed after a third of it, for as long as the handler of the request runs. Zero
	// means 10 seconds, or three times StoreTimeout if that is longer. Lease must be at
	// least three times StoreTimeout and at most a day. It has no effect on a Memory, which
	// ends with the process.
	Lease time.Duration
	// CacheDenials is for how long a refusal by Store is repeated without asking it, at
	// most until its wait has passed; zero means never. It takes the load of clients that
	// ignore refusals from the store. The refusal is exact, and its header fields are as old
	// as it is. If another process resets the key or refunds a charge, this process notices
	// that when the time is over. CacheDenials does not apply if a violated policy has Count
	// or Settle or a [Concurrency] limit, nor to a Memory.
	CacheDenials time.Duration
	// Headers are the header fields that describe the limits to clients.
	Headers Headers
	// PlanOf returns the plan of an account, in place of the Plan of the
	// [usher.Principal], which is that of its credential. It applies to policies with
	// Plans, and to callers with an Owner. All policies of a decision see the same plan.
	//
	// A plan is kept for 10 seconds, for up to 10,000 accounts, and requests of one account
	// share a call. So each process notices a change within 10 seconds. While PlanOf fails,
	// panics or takes longer than a second, the account keeps the last plan until that is an
	// hour old, and the failure is reported. Without a last plan, the request is refused with
	// 503. PlanOf must be safe for concurrent use; its context has the values of a request,
	// but does not end with it.
	PlanOf func(ctx context.Context, owner string) (plan string, err error)
	// OnError is called with the context of a request, which may have ended, for each failure
	// of the store, each place that the store has lost, each invalid limit, each unknown plan,
	// each failure of PlanOf or of a LimitOf, and each panic of Count or OnDecision. Nil
	// logs them to [log/slog.Default], at most one a second; of a panic it logs only the
	// type and the stack. It must be safe for concurrent use.
	OnError func(ctx context.Context, err error)
	// OmitRetryAfter leaves Retry-After out of refusals.
	OmitRetryAfter bool
	// Exempt reports whether a request passes without being counted, and Block whether
	// it is refused with 403. Block is called first. [clientip.In] returns such functions.
	// Behind proxies they need a [clientip.Resolver], without which every request comes from
	// the address of the proxy. They must be safe for concurrent use. Nil means no request.
	Exempt, Block func(*http.Request) bool
	// OnDecision is called for each decision about a request, before the handler runs, and
	// for each call of [Limiter.Allow]: once for each policy that counts, with its verdict.
	// It is not called for [Limiter.Peek], nor if no limit could be applied. The request
	// waits for it. [LogDecisions] returns such a function. Nil costs nothing. A panic is
	// reported to OnError, and does not change the decision. OnDecision must be safe for
	// concurrent use.
	OnDecision func(context.Context, Verdict)
	// MeterProvider counts decisions as usher.rate_limiting.requests; nil means the global
	// one. The attribute usher.rate_limiting.result says what has become of a request:
	//
	//   - acquired: it is admitted
	//   - exempt and blocked: by the functions of these names
	//   - canceled: its client disconnected, or its time ran out, before it was decided or
	//     while it waited for its turn
	//   - store_failed: Store has failed, so OnStoreFailure decides
	//   - place_lost: Store has lost a place or a reservation of a running request
	//   - plan_unknown, plan_failed and limit_invalid: what OnError reports
	//
	// What one policy decides also has the attribute usher.rate_limiting.policy:
	//
	//   - refused, and shadow_refused under Shadow
	//   - delayed: the request waits for its turn under Delay
	//   - near_limit: it is admitted, and less than a fifth of the quota is left, or of the
	//     burst of a [TokenBucket]
	//
	// The calls of Store are measured as usher.store.operation.duration.
	//
	// A span that is being recorded has the same attributes, the policy being the one with
	// the longest wait, and usher.rate_limiting.violated_policies.
	MeterProvider metric.MeterProvider
}

// A FailureMode is what a [Limiter] does while its store fails. One call that takes longer
// than [Config.StoreTimeout] is a failure too.
type FailureMode uint8

const (
	// FallBackToMemory applies the limits in this process alone, by counts of its own. These
	// know nothing of what the store has counted, and the store never learns of what is
	// charged to them. So each process admits up to the whole limit once more.
	FallBackToMemory FailureMode = iota
	// DangerouslyFailOpen admits every request, and charges nothing.
	DangerouslyFailOpen
	// FailClosed refuses every request with 503. It is the mode for a budget that must not
	// be exceeded while the store fails.
	FailClosed
)
