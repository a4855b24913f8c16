package jwk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/usher-go/usher/internal/jose"
	"github.com/usher-go/usher/internal/outbound"
)

// A discovery finds the URL of the keys of an issuer in the issuer's metadata.
type discovery struct {
	issuer    string
	documents []string // the URLs at which the metadata may be, in order
	plain     bool     // whether the metadata may name a URL without TLS
}

// newDiscovery returns a discovery for an issuer, which must be a URL.
func newDiscovery(issuer string, plain bool) (*discovery, error) {
	u, err := outbound.ParseURL(issuer, plain)
	if err != nil {
		return nil, err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return nil, errors.New("must be a URL without a query")
	}
	const (
		openID = "/.well-known/openid-configuration"
		oauth  = "/.well-known/oauth-authorization-server"
	)
	origin, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	d := &discovery{issuer: issuer, plain: plain}
	d.documents = []string{origin + path + openID, origin + oauth + path}
	if path != "" {
		d.documents = append(d.documents, origin+path+oauth)
	}
	return d, nil
}

// maxMetadata limits the size of the metadata, in bytes.
const maxMetadata = 64 << 10

// find returns the URL of the keys. It asks for the metadata at each place where it may
// be (OpenID Connect Discovery 1.0, section 4; RFC 8414, section 3) until there is some.
func (d *discovery) find(ctx context.Context, client *http.Client) (*url.URL, error) {
	var missing []error
	for _, document := range d.documents {
		body, err := get(ctx, client, document, "application/json", maxMetadata)
		if err == nil {
			return d.read(body)
		}
		err = fmt.Errorf("the metadata at %s: %w", document, err)
		if !errors.Is(err, outbound.StatusError(http.StatusNotFound)) {
			return nil, err
		}
		missing = append(missing, err)
	}
	return nil, errors.Join(missing...)
}

// read returns the URL of the keys in metadata. Metadata of another issuer is refused:
// otherwise an issuer could give its own keys the name of another one (RFC 8414, sections
// 3.3 and 6.2).
func (d *discovery) read(body []byte) (*url.URL, error) {
	_, members, err := jose.ParseObject(nil, body)
	if err != nil {
		return nil, fmt.Errorf("the metadata is not a JSON object that all read alike: %w", err)
	}
	text := func(name string) string {
		value, _ := jose.Find(members, name)
		text, _ := jose.Unquote(value)
		return text
	}
	if issuer := text("issuer"); issuer != d.issuer {
		const most = 200
		return nil, fmt.Errorf("the metadata is that of the issuer %q and not of %q", issuer[:min(len(issuer), most)], d.issuer)
	}
	u, err := outbound.ParseURL(text("jwks_uri"), d.plain)
	if err != nil {
		return nil, fmt.Errorf("the jwks_uri in the metadata %w", err)
	}
	return u, nil
}
