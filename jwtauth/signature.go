package jwtauth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/usher-go/usher/internal/guard"
	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/jwtauth/jwk"
)

// maxTries bounds how many keys of a set are tried for one token, and maxRetries how many
// others when the set is refreshed, which may change it.
const (
	maxTries   = 16
	maxRetries = 32
)

// verifySignature returns the verdict on the signature of t, and the version of the key
// set that has its key. A panic of the set is a failure of it.
func (i *issuer) verifySignature(ctx context.Context, t *jose.Token) (version uint64, v Verdict, cause error) {
	cause = guard.Run(func() (err error) {
		version, v, err = i.findKey(ctx, t)
		return err
	})
	if _, ok := errors.AsType[*guard.PanicError](cause); ok {
		return 0, Unavailable, fmt.Errorf("jwtauth: the keys: %w", cause)
	}
	return version, v, cause
}

// has reports whether the keys of i are those of this version.
func (i *issuer) has(version uint64) (same bool) {
	defer func() {
		if recover() != nil {
			same = false // the verification that follows reports the failure
		}
	}()
	present, err := i.keys.Version()
	return err == nil && present == version
}

func (i *issuer) findKey(ctx context.Context, t *jose.Token) (version uint64, v Verdict, cause error) {
	keys, version, err := i.keys.Find(ctx, t.KeyID, jwk.Algorithm(t.Algorithm))
	if err != nil {
		return 0, Unavailable, err
	}
	v = UnknownKey
	tries := 0
	for _, k := range keys {
		k = i.suiting(k, t)
		if k == nil {
			continue
		}
		if tries == maxTries {
			break
		}
		tries++
		if cause = k.Verify(t.Signed, t.Signature); cause == nil {
			return version, Accepted, nil
		}
		v = BadSignature
	}
	if set, ok := i.keys.(jwk.Refresher); ok && len(keys) > 0 {
		switch version, ok, err := i.refresh(ctx, set, t, keys); {
		case err != nil:
			return 0, Unavailable, err
		case ok:
			return version, Accepted, nil
		}
	}
	return 0, v, cause
}

// suiting returns k as the key for t, or nil. A key is for one algorithm, whatever the
// set returns (RFC 8725, section 3.1).
func (i *issuer) suiting(k *jwk.Key, t *jose.Token) *jwk.Key {
	if k != nil {
		k = k.As(i.algorithms...)
	}
	if k == nil || !k.Matches(t.KeyID, jwk.Algorithm(t.Algorithm)) || !i.owns(k, t.Claims) {
		return nil
	}
	return k
}

// owns reports whether k may sign tokens of i with these claims. Microsoft publishes the
// keys of several issuers in one set, and a key of the issuer of personal accounts must
// not sign for a tenant.
func (i *issuer) owns(k *jwk.Key, claims []jose.Member) bool {
	name := k.Issuer()
	if name == "" {
		return true
	}
	if strings.Contains(name, tenantID) {
		value, _ := jose.Find(claims, "tid")
		tenant, _ := jose.Unquote(value)
		if tenant == "" {
			return false
		}
		name = strings.ReplaceAll(name, tenantID, tenant)
	}
	return i.isNamed(name)
}

// tenantID stands for the claim tid in the issuer of a key.
const tenantID = "{tenantid}"

// refresh refreshes the set because the tried keys do not verify t, and returns the
// version of the set that has a key which does.
func (i *issuer) refresh(ctx context.Context, set jwk.Refresher, t *jose.Token, tried []*jwk.Key) (version uint64, ok bool, err error) {
	tried = slices.Clip(tried)
	token := *t // that of the caller does not escape
	retries, verified := 0, false
	version, ok, err = set.Refresh(ctx, t.KeyID, jwk.Algorithm(t.Algorithm), func(k *jwk.Key) bool {
		if retries == maxRetries || slices.Contains(tried, k) {
			return false
		}
		tried = append(tried, k)
		k = i.suiting(k, &token)
		if k == nil {
			return false
		}
		retries++
		matches := k.Verify(token.Signed, token.Signature) == nil
		verified = verified || matches
		return matches
	})
	return version, ok && verified, err
}
