package usherredis_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/usherredis"
)

const password = "hunter2-%2F"

func TestOpenReportsEveryFault(t *testing.T) {
	s := servers.Redis(t)
	client := connect(t, s.Addr)
	for name, c := range map[string]struct {
		config usherredis.Config
		want   []string
	}{
		"nothing":           {usherredis.Config{}, []string{"Prefix", "URL"}},
		"braces":            {usherredis.Config{URL: "redis://h", Prefix: "a}b"}, []string{"Prefix"}},
		"a long prefix":     {usherredis.Config{URL: "redis://h", Prefix: strings.Repeat("p", 65)}, []string{"Prefix"}},
		"both":              {usherredis.Config{URL: "redis://h", Client: client, Prefix: "p"}, []string{"URL"}},
		"no scheme":         {usherredis.Config{URL: "h:6379", Prefix: "p"}, []string{"URL"}},
		"no host":           {usherredis.Config{URL: "redis:", Prefix: "p"}, []string{"URL"}},
		"another scheme":    {usherredis.Config{URL: "http://u:" + password + "@h", Prefix: "p"}, []string{"URL"}},
		"a faulty port":     {usherredis.Config{URL: "redis://u:" + password + "@h:x", Prefix: "p"}, []string{"URL"}},
		"a faulty password": {usherredis.Config{URL: "redis://u:" + password + "%zz@h", Prefix: "p"}, []string{"URL"}},
		"a faulty database": {usherredis.Config{URL: "redis://u:" + password + "@h/x", Prefix: "p"}, []string{"URL"}},
		"a faulty timeout":  {usherredis.Config{URL: "redis://u:" + password + "@h?dial_timeout=1", Prefix: "p"}, []string{"URL"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := usherredis.Open(c.config)
			if err == nil {
				t.Fatal("no error")
			}
			for _, field := range c.want {
				if !strings.Contains(err.Error(), "usherredis.Config."+field+": ") {
					t.Errorf("%v, want a fault of %s", err, field)
				}
			}
			if _, ok := errors.AsType[*usher.ConfigError](err); !ok || strings.Count(err.Error(), "\n") != len(c.want)-1 {
				t.Errorf("%v, want %d ConfigErrors", err, len(c.want))
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error has the password: %v", err)
			}
		})
	}
}

func TestCredentialsAreUsedAndNeverReported(t *testing.T) {
	s := servers.Redis(t)
	must(t, s.Addr, "CONFIG", "SET", "requirepass", "hunter2-/")
	good := openURL(t, "redis://:"+password+"@"+s.Addr, newPrefix())
	wantAll(t, calls(t.Context(), good), nil)
	if err := good.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	for name, url := range map[string]string{
		"no password":      "redis://" + s.Addr,
		"another password": "redis://:hunter2-else@" + s.Addr,
		"another user":     "redis://nobody:hunter2-else@" + s.Addr,
		"a black hole":     "redis://:hunter2-else@192.0.2.1:6379",
		"an echo":          "redis://:hunter2-else@" + fake(t, "-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'default' 'hunter2-else'"),
		"another echo":     "redis://:hunter2-else@" + fake(t, "-ERR what is hunter2-else"),
	} {
		t.Run(name, func(t *testing.T) {
			r := openURL(t, url, newPrefix())
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			errs := calls(ctx, r)
			errs["Check"] = r.Check(ctx)
			for name, err := range errs {
				if err == nil || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s: %v, want an error without the password", name, err)
				}
			}
			if !strings.Contains(name, "echo") {
				wantAll(t, errs, usher.ErrUnavailable)
			}
		})
	}
}

// The documentation of the package names these rights.
func TestAUserNeedsFewRights(t *testing.T) {
	s := servers.Redis(t)
	must(t, s.Addr, strings.Fields("ACL SETUSER orders on >hunter2 "+
		"~{orders}:* +eval +evalsha +get +set +setrange +strlen +del +pexpire +pttl +time +info +ping")...)
	r := openURL(t, "redis://orders:hunter2@"+s.Addr+"?dial_timeout=5s", "orders")
	useAll(t, r)
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	must(t, s.Addr, "ACL", "SETUSER", "orders", "-get")
	wantAll(t, map[string]error{
		"Take":  r.Limits().Take(t.Context(), decision(charge("p", limits["token bucket"], 1))),
		"Claim": func() error { _, err := r.Idempotency().Claim(t.Context(), newClaim()); return err }(),
	}, usher.ErrUnavailable)
	other := openURL(t, "redis://orders:hunter2@"+s.Addr+"?dial_timeout=5s", "payments")
	wantAll(t, map[string]error{"Take": other.Limits().Take(t.Context(), decision(charge("p", limits["token bucket"], 1)))}, usher.ErrUnavailable)
}

func TestCheckSaysWhatToDo(t *testing.T) {
	good := "redis_version:7.0.15\r\nredis_mode:standalone\r\nloading:0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n"
	for name, c := range map[string]struct{ info, want string }{
		"a good server":      {good, ""},
		"an old server":      {strings.Replace(good, "7.0.15", "6.2.1", 1), "use Redis 7 or later"},
		"a Sentinel":         {strings.Replace(good, "standalone", "sentinel", 1), "set Config.Client to a client for Sentinel"},
		"loading":            {strings.Replace(good, "loading:0", "loading:1", 1), "wait until it has finished"},
		"a replica":          {strings.Replace(good, "role:master", "role:slave", 1), "set Config.URL to its primary"},
		"an evicting one":    {strings.Replace(good, "noeviction", "allkeys-lru", 1), "set maxmemory-policy to noeviction"},
		"something else":     {"hello", "correct Config.URL"},
		"a web server":       {"HTTP/1.1 400 Bad Request", "correct Config.URL"},
		"an error":           {"-NOPERM this user has no permissions", "correct the credentials"},
		"nothing there":      {"absent", "start the Redis server"},
		"a silent server":    {"silent", "start the Redis server"},
		"a server that ends": {"", "start the Redis server"},
	} {
		t.Run(name, func(t *testing.T) {
			reply := c.info
			if strings.Contains(reply, ":") || reply == "hello" {
				reply = fmt.Sprintf("$%d\r\n%s", len(reply), reply)
			}
			addr := "127.0.0.1:1"
			if c.info != "absent" {
				addr = fake(t, reply)
			}
			r := openURL(t, "redis://"+addr, newPrefix())
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			err := r.Check(ctx)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Check: %v, want %q", err, c.want)
			}
		})
	}
}

func TestCheckOfARealServer(t *testing.T) {
	s := servers.Redis(t)
	r := open(t, s.Addr, newPrefix())
	if err := r.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	must(t, s.Addr, "CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
	if err := r.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "it is volatile-ttl") {
		t.Errorf("Check: %v, want it to name the policy", err)
	}
	if n := len(keys(t, s.Addr)); n != 0 {
		t.Errorf("Check has written %d keys", n)
	}
}

// fake starts a server with one reply to all commands, except that it does not know HELLO
// 3. It returns the address. For the reply "silent" the server does not reply, and for an
// empty one it ends the connection.
func fake(t *testing.T, reply string) string {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c, reply)
		}
	}()
	return l.Addr().String()
}

func serve(c net.Conn, reply string) {
	defer func() { _ = c.Close() }()
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		switch {
		case !strings.HasPrefix(lines.Text(), "*") || reply == "silent":
			continue
		case reply == "":
			return
		}
		var words []string
		for range 2 * atoi(lines.Text()[1:]) {
			if !lines.Scan() {
				return
			}
			words = append(words, lines.Text())
		}
		text := reply
		if words[1] == "HELLO" && strings.HasPrefix(reply, "$") {
			text = "-ERR unknown command 'HELLO'"
		}
		if _, err := c.Write([]byte(text + "\r\n")); err != nil {
			return
		}
	}
}

func atoi(s string) (n int) {
	_, _ = fmt.Sscan(s, &n)
	return n
}
