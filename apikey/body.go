package apikey

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/jsonbody"
)

// What describes the JSON of an [usher.Level] and of networks.
const (
	levels       = "none, read_only, read_write or full"
	networkLists = "a list of networks such as 192.0.2.0/24 and of addresses"
)

// A network is a netip.Prefix whose text may also be a single address.
type network netip.Prefix

func (n *network) UnmarshalText(text []byte) error {
	p, err := netip.ParsePrefix(string(text))
	if err != nil && !strings.ContainsRune(string(text), '/') {
		var a netip.Addr
		if a, err = netip.ParseAddr(string(text)); err == nil && a.Zone() != "" {
			err = errors.New("an address with a zone is no network")
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	*n = network(p)
	return err
}

// settings are what the body of a request sets of a key.
type settings []func(k *Key)

func (s settings) apply(k *Key) {
	for _, set := range s {
		set(k)
	}
}

// readSettings reads the members that a new key and an old one may have.
func readSettings(d *jsonbody.Object[usher.Field]) (s settings) {
	var (
		to       Key
		networks []network
	)
	read := func(present bool, set func(k *Key)) {
		if present {
			s = append(s, set)
		}
	}
	read(d.Optional("name", &to.Name), func(k *Key) { k.Name = to.Name })
	read(d.Optional("description", &to.Description), func(k *Key) { k.Description = to.Description })
	read(d.Optional("scopes", &to.Scopes), func(k *Key) { k.Scopes = to.Scopes })
	read(d.OptionalAs("level", &to.Level, levels), func(k *Key) { k.Level = to.Level })
	read(d.OptionalAs("allowed_networks", &networks, networkLists), func(k *Key) {
		k.AllowedNetworks = nil
		for _, n := range networks {
			k.AllowedNetworks = append(k.AllowedNetworks, netip.Prefix(n))
		}
	})
	read(d.Optional("expires_at", &to.ExpiresAt), func(k *Key) { k.ExpiresAt = to.ExpiresAt })
	return s
}

// readBody reads the body of r. Its error is the response to a body that is not a JSON
// object.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, empty jsonbody.Empty) (*jsonbody.Object[usher.Field], error) {
	o, err := jsonbody.Read[usher.Field](w, r, limit, empty)
	e, ok := errors.AsType[*jsonbody.Error](err)
	if !ok {
		return o, err
	}
	code := usher.CodeValidationFailed
	switch e.Status {
	case http.StatusForbidden:
		code = usher.CodeCrossOriginRequest
	case http.StatusUnsupportedMediaType:
		code = usher.CodeUnsupportedMediaType
	}
	return nil, &usher.Error{Status: e.Status, Code: code, Message: e.Message, Cause: e.Cause}
}

// bodyFault returns the response to a body with invalid members, or nil if all are valid.
func bodyFault(o *jsonbody.Object[usher.Field]) error {
	if faults := o.Faults(); len(faults) > 0 {
		return usher.Invalid(faults...)
	}
	return nil
}
