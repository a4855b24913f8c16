package main

import (
	"bytes"
	"fmt"
	"strings"
)

// A recording is a query of which Prometheus stores the results.
type recording struct{ Name, Query string }

// An alert is a query that has results only while an operator has to act.
type alert struct {
	Name, Title string
	Query       string
	For         string // how long the query must have had results; empty means none
	Severity    string // critical or warning
	Summary     string // Title with what Prometheus knows, as a template of Prometheus
	Act         string // what the operator does
}

var recordings = []recording{
	{"job_store:usher_store_operations:rate5m",
		`sum by (job, usher_store) (rate(usher_store_operation_duration_seconds_count[5m]))`},
	{"job_store:usher_store_failures:ratio_rate5m",
		`sum by (job, usher_store) (rate(usher_store_operation_duration_seconds_count{error_type!~"|canceled"}[5m]))
  / job_store:usher_store_operations:rate5m`},
	{"job_store:usher_store_operation_duration_seconds:p99_rate5m",
		`histogram_quantile(0.99, sum by (job, usher_store, le) (rate(usher_store_operation_duration_seconds_bucket[5m])))`},
	{"job:usher_authentication_unavailable:ratio_rate5m",
		`sum by (job) (rate(usher_authentication_requests_total{usher_authentication_result="unavailable",usher_shadow=""}[5m]))
  / sum by (job) (rate(usher_authentication_requests_total{usher_shadow=""}[5m]))`},
}

var alerts = []alert{
	{
		Name:     "UsherStoreFailing",
		Title:    "More than one in twenty calls of a store fail.",
		Query:    `job_store:usher_store_failures:ratio_rate5m > 0.05`,
		For:      "5m",
		Severity: "critical",
		Summary:  "{{ $value | humanizePercentage }} of the calls of the store {{ $labels.usher_store }} of {{ $labels.job }} fail.",
		Act: "Look at error_type: a timeout or a guard that is open means that the store is slow or down, anything else that it " +
			"refuses calls. The log has the errors. Until the store is back, keys and sessions that are not in a cache get 503, " +
			"and limits and idempotency do what their failure mode says.",
	},
	{
		Name:     "UsherStoreSlow",
		Title:    "One in a hundred calls of a store takes longer than a quarter of a second.",
		Query:    `job_store:usher_store_operation_duration_seconds:p99_rate5m > 0.25`,
		For:      "10m",
		Severity: "warning",
		Summary:  "One call in a hundred of the store {{ $labels.usher_store }} of {{ $labels.job }} takes {{ $value | humanizeDuration }} or longer.",
		Act:      "Each request waits for these calls. Compare with the store's own figures: if those are good, the network or the pool of connections is the cause.",
	},
	{
		Name:     "UsherStoreGivenUp",
		Title:    "Calls of a store fail at once, as most calls before them have failed.",
		Query:    `sum by (job, usher_store) (usher_store_breakers_open) > 0`,
		For:      "1m",
		Severity: "critical",
		Summary:  "{{ $value }} circuit breakers of the store {{ $labels.usher_store }} of {{ $labels.job }} are open.",
		Act:      "As for UsherStoreFailing. One call a second probes the store, and the first success closes the breaker.",
	},
	{
		Name:     "UsherLimitsWithoutStore",
		Title:    "Rate limits do not reach their store.",
		Query:    `sum by (job) (rate(usher_rate_limiting_requests_total{usher_rate_limiting_result="store_failed"}[5m])) > 0`,
		For:      "5m",
		Severity: "critical",
		Summary:  "The limits of {{ $labels.job }} do not reach their store for {{ $value | humanize }} requests a second.",
		Act: "What happens to these requests is Config.OnStoreFailure: each process limits by its own counts (the default), " +
			"admits everything (DangerouslyFailOpen), or refuses everything with 503 (FailClosed). With the first two, clients can spend more than their limits.",
	},
	{
		Name:     "UsherLimitsMisconfigured",
		Title:    "A rate limit cannot be applied as configured.",
		Query:    `sum by (job, usher_rate_limiting_result) (rate(usher_rate_limiting_requests_total{usher_rate_limiting_result=~"limit_invalid|plan_unknown|plan_failed"}[5m])) > 0`,
		For:      "10m",
		Severity: "warning",
		Summary:  "Limits of {{ $labels.job }} cannot be applied as configured: {{ $labels.usher_rate_limiting_result }}.",
		Act:      "The log names the plan or the limit. Such requests get the limit of a policy without a plan, or 503.",
	},
	{
		Name:     "UsherAuthenticationUnavailable",
		Title:    "More than one in a hundred requests get 503, as their credential cannot be checked.",
		Query:    `job:usher_authentication_unavailable:ratio_rate5m > 0.01`,
		For:      "5m",
		Severity: "critical",
		Summary:  "{{ $value | humanizePercentage }} of the requests of {{ $labels.job }} get 503, as their credential cannot be checked.",
		Act:      "Find out which credential it is by the result unavailable of API keys, tokens and introspection. Its store, its key set or its authorization server is down; see the dashboard's rows of stores and of keys.",
	},
	{
		Name:     "UsherKeySetStale",
		Title:    "Fetches of the keys of an issuer have failed for an hour.",
		Query:    `sum by (job) (increase(usher_jwk_fetch_duration_seconds_count{error_type!~"|canceled"}[15m])) > 0`,
		For:      "1h",
		Severity: "critical",
		Summary:  "{{ $labels.job }} has failed to fetch the keys of an issuer for an hour.",
		Act: "The log has the errors; fetch the URL of the keys from the host of the service. Tokens are verified with the last good " +
			"set until RemoteConfig.StaleAfter, 6 hours by default, and get 503 after that. Until then the service does not know the keys " +
			"that the issuer has added or withdrawn.",
	},
	{
		Name:     "UsherRefreshTokenReused",
		Title:    "A refresh token was used twice.",
		Query:    happened(`usher_session_refreshes_total{usher_session_result="reused"}`),
		Severity: "warning",
		Summary:  "A refresh token of {{ $labels.job }} was used twice, and its session was ended.",
		Act:      "Either the token was stolen or a client does not store the token that it gets. The Audit function of the sessions has the subject and the address. Many subjects at once point to a client, or to a leak.",
	},
	{
		Name:     "UsherPanic",
		Title:    "A handler has panicked.",
		Query:    happened(`usher_envelope_panics_total`),
		Severity: "warning",
		Summary:  "A handler of {{ $labels.job }} has panicked.",
		Act:      "The log has the route, the stack and the IDs of the request and of its trace.",
	},
	{
		Name:     "UsherIdempotencyUnprotected",
		Title:    "Requests with an idempotency key ran without protection.",
		Query:    happened(`usher_idempotency_requests_total{usher_idempotency_result="unprotected"}`),
		Severity: "critical",
		Summary:  "{{ $labels.job }} has run requests with an idempotency key without protection.",
		Act:      "The store of the keys has failed while DangerouslyFailOpen was set. A retry of one of these requests has run twice: compare what the handler has stored, by the keys in the log of OnResult.",
	},
	{
		Name:  "UsherIdempotencyOutcomeUnknown",
		Title: "Nobody knows whether a request with an idempotency key took effect.",
		Query: happened(`usher_idempotency_claims_total{usher_idempotency_end=~"lease_lost|finish_failed"}`) +
			"\n  or " + happened(`usher_idempotency_requests_total{usher_idempotency_result=~"unreadable|resolve_failed"}`),
		Severity: "critical",
		Summary:  "{{ $labels.job }} does not know whether requests with an idempotency key took effect.",
		Act:      "After lease_lost, a retry may have run the handler a second time. After the others, retries get an error until somebody decides: find the keys in the log, find out what the handler has done, and set the outcome with Middleware.Resolve.",
	},
	{
		Name:     "UsherIdempotencyEvictions",
		Title:    "Stored responses are removed before their TTL ends.",
		Query:    `sum by (job) (increase(usher_idempotency_evictions_total[15m])) > 0`,
		For:      "15m",
		Severity: "warning",
		Summary:  "{{ $labels.job }} removes stored responses before their TTL ends.",
		Act:      "Their retries get 409 in place of the response. Give the Memory more room, see Memory.Capacity, or use a store.",
	},
}

// happened returns the query for whether any event has been counted within 15 minutes. A
// counter has no series before its first event, and increase sees nothing in a series that
// begins with a 1, so the query also looks for new series.
func happened(selector string) string {
	return fmt.Sprintf("sum by (job) (increase(%s[15m])) > 0\n  or sum by (job) (%s unless %s offset 15m) > 0",
		selector, selector, selector)
}

// runbook is the URL of what to do about an alert.
func (a alert) runbook() string {
	return "https://github.com/usher-go/usher/blob/main/docs/telemetry.md#" + strings.ToLower(a.Name)
}

// rules returns the recordings and alerts as a file of rules for Prometheus.
func rules() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("# " + generated + "\ngroups:\n  - name: usher-recordings\n    rules:\n")
	for _, r := range recordings {
		fmt.Fprintf(&b, "      - record: %s\n        expr: |-\n%s", r.Name, indented(r.Query))
	}
	b.WriteString("  - name: usher-alerts\n    rules:\n")
	for _, a := range alerts {
		fmt.Fprintf(&b, "      - alert: %s\n        expr: |-\n%s", a.Name, indented(a.Query))
		if a.For != "" {
			fmt.Fprintf(&b, "        for: %s\n", a.For)
		}
		// Strings of Go in double quotes without escapes are strings of YAML.
		fmt.Fprintf(&b, "        labels:\n          severity: %s\n        annotations:\n          summary: %q\n          description: %q\n          runbook_url: %q\n",
			a.Severity, a.Summary, a.Act, a.runbook())
	}
	return b.Bytes(), nil
}

// generated is the first line of a document.
const generated = "Code generated by go run ./tests/telemetry/documents; DO NOT EDIT."

// indented returns the lines of a query as a block of YAML.
func indented(query string) string {
	var b strings.Builder
	for line := range strings.Lines(query + "\n") {
		b.WriteString("          " + line)
	}
	return b.String()
}
