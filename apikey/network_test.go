package apikey_test

import (
	"net/netip"
	"testing"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
	"github.com/usher-go/usher/clientip"
	"github.com/usher-go/usher/internal/compare"
)

func networks(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestAKeyIsAcceptedFromItsNetworksOnly(t *testing.T) {
	m, store := newManagerOn(t)
	a := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{})
	for _, test := range []struct {
		networks []netip.Prefix
		from     string // of a resolver; empty if there is none
		peer     string
		want     apikey.Verdict
	}{
		{nil, "203.0.113.9", "192.0.2.1:80", apikey.Accepted},
		{nil, "", "@", apikey.Accepted}, // a Unix socket
		{networks("203.0.113.0/24"), "203.0.113.9", "192.0.2.1:80", apikey.Accepted},
		{networks("203.0.113.0/24"), "203.0.112.255", "203.0.113.9:80", apikey.WrongNetwork},
		{networks("203.0.113.0/24"), "", "203.0.113.9:80", apikey.Accepted},
		{networks("203.0.113.0/24"), "", "203.0.114.0:80", apikey.WrongNetwork},
		{networks("203.0.113.0/24"), "", "[::ffff:203.0.113.9]:80", apikey.Accepted},
		{networks("203.0.113.0/24"), "", "@", apikey.WrongNetwork},
		{networks("203.0.113.0/24"), "", "", apikey.WrongNetwork},
		{networks("0.0.0.0/0"), "", "[2001:db8::1]:80", apikey.WrongNetwork},
		{networks("0.0.0.0/0", "::/0"), "", "@", apikey.WrongNetwork},
		{networks("0.0.0.0/0", "::/0"), "", "[2001:db8::1]:80", apikey.Accepted},
		{networks("10.0.0.0/8", "2001:db8::/32"), "", "[2001:db8:1::1]:80", apikey.Accepted},
		{networks("10.0.0.0/8", "2001:db8::/32"), "", "[2001:db9::1]:80", apikey.WrongNetwork},
		{networks("198.51.100.7/32"), "", "198.51.100.7:1", apikey.Accepted},
		{networks("::ffff:198.51.100.0/120"), "", "198.51.100.7:1", apikey.Accepted},
		{networks("198.51.100.77/24"), "", "198.51.100.7:1", apikey.Accepted},
	} {
		_, text := create(t, m, apikey.Key{AllowedNetworks: test.networks})
		r := request("X-API-Key", text)
		r.RemoteAddr = test.peer
		if test.from != "" {
			r = clientip.WithAddr(r, netip.MustParseAddr(test.from))
		}
		if _, err := a.Authenticate(r); verdictOf(t, err) != test.want {
			t.Errorf("a key of %v from %q behind %q: %v, want %v", test.networks, test.from, test.peer, err, test.want)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNetworksAreKeptInOneForm(t *testing.T) {
	m := newManager(t, apikey.ManagerConfig{})
	k, _ := create(t, m, apikey.Key{AllowedNetworks: networks("10.1.2.3/8", "10.9.0.0/8", "::ffff:192.0.2.1/120", "2001:db8::1/32", "::ffff:0:0/90", "::ffff:0:0/96")})
	if diff := compare.Diff(networks("10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32", "::ffc0:0:0/90", "0.0.0.0/0"), k.AllowedNetworks); diff != "" {
		t.Error(diff)
	}
}

// Otherwise a thief of a key could use it in its network to make one that works everywhere.
func TestAKeyOfANetworkCannotMakeAKeyOfAnother(t *testing.T) {
	m, store := newManagerOn(t)
	own, text := create(t, m, apikey.Key{Owner: "ann", Scopes: []string{"a"}, Level: usher.LevelFull, AllowedNetworks: networks("10.0.0.0/8", "2001:db8::/32")})
	r := request("X-API-Key", text)
	r.RemoteAddr = "10.1.1.1:80"
	p, err := newAuthenticator(t, apikey.ManagerConfig{Store: store}, apikey.Config{}).Authenticate(r)
	if err != nil {
		t.Fatal(err)
	}
	by := apikey.Actor{Principal: p}
	for i, test := range []struct {
		networks []netip.Prefix
		want     int
	}{
		{networks("10.0.0.0/8"), 0},
		{networks("10.2.0.0/16", "2001:db8:7::/48"), 0},
		{nil, 403},
		{networks("10.0.0.0/7"), 403},
		{networks("10.2.0.0/16", "192.0.2.0/24"), 403},
		{networks("0.0.0.0/0"), 403},
		{networks("::/0"), 403},
	} {
		k, _, err := m.Create(t.Context(), by, apikey.Key{Name: "x", AllowedNetworks: test.networks})
		if statusOf(err) != test.want {
			t.Errorf("create with %v: %v", test.networks, err)
		}
		if err == nil {
			widen := func(k *apikey.Key) {
				k.AllowedNetworks = append(k.AllowedNetworks, netip.MustParsePrefix("192.0.2.0/24"))
			}
			if _, err := m.Update(t.Context(), by, "ann", k.ID, widen); statusOf(err) != 403 {
				t.Errorf("one more network: %v", err)
			}
			narrow := func(k *apikey.Key) { k.AllowedNetworks = networks("10.2.3.0/24") }
			if k, err := m.Update(t.Context(), by, "ann", k.ID, narrow); err != nil || len(k.AllowedNetworks) != 1 {
				t.Errorf("a smaller network: %v", err)
			}
		}
		_, err = m.Import(t.Context(), by, apikey.Key{Name: "x", Environment: "live", AllowedNetworks: test.networks}, apikey.Hash{1: byte(i + 1)})
		if statusOf(err) != test.want {
			t.Errorf("import with %v: %v", test.networks, err)
		}
	}
	free, _ := create(t, m, apikey.Key{})
	if _, _, err := m.Rotate(t.Context(), by, "ann", free.ID, 0); statusOf(err) != 403 {
		t.Errorf("rotation of a key without networks: %v", err)
	}
	if _, err := m.Update(t.Context(), by, "ann", own.ID, func(k *apikey.Key) { k.AllowedNetworks = nil }); statusOf(err) != 403 {
		t.Errorf("its own networks: %v", err)
	}
}
