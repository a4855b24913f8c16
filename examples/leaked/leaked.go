// Package leaked revokes the API keys that GitHub has found in public code.
//
//	h, err := leaked.New(leaked.Config{Keys: keys.Manager, Notify: mailOwner})
//	mux.Handle("POST /leaked-keys", h)
//
// A service that takes part in GitHub's secret scanning partner programme gives GitHub the
// URL of this handler, and the regular expressions of its keys. GitHub then sends each text
// that matches one, signed. The handler revokes every text that is a key, and responds with
// which were and which were not.
//
// The programme is described on
// https://docs.github.com/code-security/secret-scanning/secret-scanning-partnership-program/secret-scanning-partner-program.
// Copy the package: it needs nothing but usher and the standard library.
package leaked

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

// Config configures a handler.
type Config struct {
	// Keys has the keys of the service. Required.
	Keys *apikey.Manager
	// Notify, if not nil, is called with each key that a report has revoked, on the
	// goroutine of the request, so that its owner learns why it no longer works. It is not
	// called again if the report is repeated.
	Notify func(ctx context.Context, k apikey.Key, where Place)
	// KeysURL is where GitHub publishes the keys that it signs reports with; empty means
	// https://api.github.com/meta/public_keys/secret_scanning.
	KeysURL string
	// Token, if it holds text, is a token of GitHub without any permission. It raises the
	// rate limit of KeysURL.
	Token apikey.Secret
	// Client fetches KeysURL, for up to 10 seconds; nil means [http.DefaultClient].
	Client *http.Client
	// OnError, if not nil, is called with each failure; nil logs to [slog.Default].
	OnError func(ctx context.Context, err error)
}

// A Place is where GitHub has found a key. Both fields may be empty.
type Place struct {
	URL    string // of the page that shows it
	Source string // the kind of page, such as "commit" or "issue_comment"
}

const (
	// maxBody bounds the body of a report in bytes; it has room for thousands of keys.
	maxBody = 1 << 20
	// maxRevocations bounds the keys of a report that are revoked at a time.
	maxRevocations = 8
	// patience is how long GitHub waits for a response, less a reserve.
	patience = 25 * time.Second
)

// New returns the handler of reports, which is safe for concurrent use.
func New(c Config) (http.Handler, error) {
	if c.Keys == nil {
		return nil, errors.New("leaked: Config.Keys is required")
	}
	if c.OnError == nil {
		c.OnError = func(ctx context.Context, err error) { slog.ErrorContext(ctx, "leaked: failure", "error", err) }
	}
	return &handler{c, newKeySet(c)}, nil
}

type handler struct {
	Config
	signers *keySet
}

// A match is one text that GitHub has found.
type match struct {
	Token  string `json:"token"`
	Type   string `json:"type"`
	URL    string `json:"url"`
	Source string `json:"source"`
}

// A verdict is what GitHub learns about a match. It has the SHA-256 of the text in place of
// the text.
type verdict struct {
	Hash  string `json:"token_hash"`
	Type  string `json:"token_type"`
	Label string `json:"label"`
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	matches, err := h.read(ctx, w, r)
	if err != nil {
		usher.Fail(w, r, err)
		return
	}
	results := h.revoke(ctx, matches)
	h.notify(ctx, results)
	verdicts := make([]verdict, len(results))
	for i, result := range results {
		verdicts[i] = result.verdict
		err = errors.Join(err, result.err)
	}
	if err != nil {
		// It is harmless to send the report again.
		h.OnError(ctx, err)
		usher.Fail(w, r, unavailable(err))
		return
	}
	// An envelope must not wrap the list, whose form GitHub prescribes.
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(verdicts); err != nil {
		h.OnError(ctx, err)
	}
}

// read returns the matches of a report that GitHub has signed.
func (h *handler) read(ctx context.Context, w http.ResponseWriter, r *http.Request) ([]match, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return nil, err // of a body that is too long, usher.Fail makes a 413
	}
	// The signature is over the bytes of the body, not over its meaning.
	switch err := h.signers.verify(ctx, r.Header, body); {
	case errors.Is(err, errForged):
		return nil, &usher.Error{
			Status: http.StatusForbidden, Code: "invalid_signature",
			Message: "The report is not signed by GitHub.", Cause: err,
		}
	case err != nil:
		h.OnError(ctx, err)
		return nil, unavailable(err)
	}
	var matches []match
	if err := json.Unmarshal(body, &matches); err != nil {
		return nil, &usher.Error{
			Status: http.StatusBadRequest, Code: usher.CodeValidationFailed,
			Message: "The report must be a JSON array of matches.", Cause: err,
		}
	}
	return matches, nil
}

// A result is what became of a match.
type result struct {
	verdict
	revoked *apikey.Key // by this report
	where   Place
	err     error
}

// revoke revokes the keys among the matches.
func (h *handler) revoke(ctx context.Context, matches []match) []result {
	results := make([]result, len(matches))
	var running sync.WaitGroup
	free := make(chan struct{}, maxRevocations)
	for i, m := range matches {
		free <- struct{}{}
		running.Go(func() {
			results[i] = h.revokeOne(ctx, m)
			<-free
		})
	}
	running.Wait()
	return results
}

// revokeOne revokes the key of a match, if there is one, whatever its state is.
func (h *handler) revokeOne(ctx context.Context, m match) result {
	sum := sha256.Sum256([]byte(m.Token))
	r := result{
		verdict: verdict{hex.EncodeToString(sum[:]), m.Type, "true_positive"},
		where:   Place{m.URL, m.Source},
	}
	k, err := h.Keys.FindByText(ctx, apikey.NewSecret(m.Token))
	switch {
	case errors.Is(err, apikey.ErrNotFound):
		r.Label = "false_positive"
	case err != nil:
		r.err = fmt.Errorf("finding a leaked key: %w", err)
	case k.RevokedAt.IsZero():
		if k, err = h.Keys.Revoke(ctx, apikey.Actor{System: true}, k.Owner, k.ID); err != nil {
			r.err = fmt.Errorf("revoking a leaked key: %w", err)
		} else {
			r.revoked = &k
		}
	}
	return r
}

// notify calls Config.Notify with each key that was revoked, once even if it was found in
// several places.
func (h *handler) notify(ctx context.Context, results []result) {
	notified := make(map[string]bool)
	for _, r := range results {
		if k := r.revoked; k != nil && h.Notify != nil && !notified[k.ID] {
			notified[k.ID] = true
			h.Notify(ctx, *k, r.where)
		}
	}
}

func unavailable(cause error) error {
	return &usher.Error{
		Status: http.StatusServiceUnavailable, Code: usher.CodeServiceUnavailable,
		Message: "The report could not be processed. Please send it again.", RetryAfter: time.Minute, Cause: cause,
	}
}
