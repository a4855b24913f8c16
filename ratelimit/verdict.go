package ratelimit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/usher-go/usher/internal/guard"
)

// A Verdict is what a decision says about one policy, for [Config.OnDecision].
type Verdict struct {
	// Policy is the name of the policy, and Limit the limit that has applied.
	Policy string
	Limit  Limit
	// Cost is what the request costs, and Remaining what is left, after the request if it
	// is admitted.
	Cost, Remaining int64
	// Violated means that too little was left. Shadow means that the policy refuses nothing.
	Violated, Shadow bool
	// Admitted reports whether the request is admitted, by all policies. If it is not, it
	// was charged under none.
	Admitted bool
	// Wait is how long the client is asked to wait if the policy is violated. It is
	// negative if no wait helps, and zero if the wait is unknown.
	Wait time.Duration

	digest func() [16]byte // of the key, which no format of package fmt shows
}

// Key returns a text that identifies the key and does not reveal it: the first 16 bytes of
// the HMAC-SHA-256 of its [Key.Digest], in hexadecimal. One key has one text in all
// processes that use the same secret. Without a secret, the text is the digest itself, as
// stores keep it; anyone can then test which address or account it belongs to.
func (v Verdict) Key(secret []byte) string {
	digest := v.digest()
	if len(secret) > 0 {
		mac := hmac.New(sha256.New, secret)
		mac.Write(digest[:])
		digest = [16]byte(mac.Sum(nil))
	}
	return hex.EncodeToString(digest[:])
}

// LogDecisions returns a function for [Config.OnDecision] that logs each verdict at
// [slog.LevelDebug]. The secret is that of [Verdict.Key]. A nil log means [slog.Default].
// While that level is disabled, a verdict costs little.
func LogDecisions(log *slog.Logger, secret []byte) func(context.Context, Verdict) {
	secret = slices.Clone(secret)
	return func(ctx context.Context, v Verdict) {
		to := log
		if to == nil {
			to = slog.Default()
		}
		if !to.Enabled(ctx, slog.LevelDebug) {
			return
		}
		to.LogAttrs(ctx, slog.LevelDebug, "ratelimit: decision",
			slog.String("policy", v.Policy), slog.String("key", v.Key(secret)), slog.String("limit", v.Limit.String()),
			slog.Int64("cost", v.Cost), slog.Int64("remaining", v.Remaining), slog.Bool("admitted", v.Admitted),
			slog.Bool("violated", v.Violated), slog.Bool("shadow", v.Shadow), slog.Duration("wait", v.Wait))
	}
}

// observe calls OnDecision with the verdict of each policy. A panic is reported, and does
// not change the decision.
func (l *Limiter) observe(ctx context.Context, d *decision) {
	for i := range d.Charges {
		c := &d.Charges[i]
		key := c.Key
		v := Verdict{
			Policy: c.Policy, Limit: c.Limit, Cost: c.Cost, Remaining: c.Remaining,
			Violated: c.Violated, Shadow: c.Shadow, Admitted: d.Admitted, digest: key.Digest,
		}
		if c.Violated {
			v.Wait = c.Wait
		}
		err := guard.Run(func() error {
			l.config.OnDecision(ctx, v)
			return nil
		})
		if err != nil {
			l.failures.Error(ctx, fmt.Errorf("ratelimit: OnDecision: %w", err))
		}
	}
}
