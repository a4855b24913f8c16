package apikey

import (
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/usher-go/usher/clientip"
)

// A Usage is one use of a key: a request that [usher.Authenticate] has admitted, and what
// became of it. The texts in it are valid UTF-8 and bounded, whatever the client sends.
type Usage struct {
	// Time is when the handler returned, or when it first flushed or hijacked the
	// connection.
	Time time.Time
	// Key is the key of the request, which must not be changed. Its LastUsedAt does not
	// include this use.
	Key *Key
	// Method is the method of the request, at most 32 bytes of it.
	Method string
	// Route is the pattern that a router has left in [http.Request.Pattern], at most 256
	// bytes of it, and empty if there is none. It is never the path, which may have
	// secrets and of which there are many.
	Route string
	// Status is that of the response, as [usher.Principal] has it for OnUse.
	Status int
	// Address is that of the client, as package clientip has determined it.
	Address netip.Addr
	// UserAgent is what the client calls itself, at most 256 bytes of it.
	UserAgent string
}

const (
	maxMethod    = 32
	maxRoute     = 256
	maxUserAgent = 256
)

// onUse returns the OnUse of the principal of k, or nil if nobody wants to know.
func (a *Authenticator) onUse(k *Key, use *used) func(r *http.Request, status int) {
	if a.lastUse == nil && a.usage == nil {
		return nil
	}
	return func(r *http.Request, status int) {
		if a.lastUse != nil && a.isSuccess(r, status) && !use.recorded() {
			a.lastUse.note(use, clientip.Of(r))
		}
		if a.usage != nil {
			a.call(r, "Config.OnUse", func() {
				a.usage(r, Usage{
					Time: time.Now(), Key: k, Status: status, Address: clientip.Of(r),
					Method:    bounded(r.Method, maxMethod),
					Route:     bounded(r.Pattern, maxRoute),
					UserAgent: bounded(r.UserAgent(), maxUserAgent),
				})
			})
		}
	}
}

// isSuccess reports whether a use with this status moves LastUsedAt.
func (a *Authenticator) isSuccess(r *http.Request, status int) (success bool) {
	if a.success == nil {
		return status < http.StatusBadRequest
	}
	a.call(r, "Config.IsSuccess", func() { success = a.success(status) })
	return success
}

// call calls f, which calls a function of the Config, and reports its panic.
func (a *Authenticator) call(r *http.Request, name string, f func()) {
	if err := callback(name, func() error { f(); return nil }); err != nil {
		a.report.Error(r.Context(), err)
	}
}

// bounded returns at most n bytes of s, without what is not UTF-8.
func bounded(s string, n int) string {
	return strings.ToValidUTF8(s[:min(len(s), n)], "")
}
