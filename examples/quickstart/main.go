// Quickstart is a small notes API, with the lines that add API keys, sessions, layered
// rate limits, idempotent retries and a response envelope. It needs no other service:
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/apikey"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and then waits for the requests in flight.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	addr := flags.String("addr", "127.0.0.1:8080", "address to listen on; port 0 picks a free one")
	asJSON := flags.Bool("json", false, "print one line of JSON when ready, for scripts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	c := credentials{User: "demo", Password: rand.Text()}
	s := newServer(c.User, c.Password)
	if err := c.issue(ctx, s.keys.Manager); err != nil {
		return errors.Join(err, listener.Close(), s.keys.Close())
	}
	show := banner
	if *asJSON {
		show = printJSON
	}
	if err := show(out, "http://"+listener.Addr().String(), c); err != nil {
		return errors.Join(err, listener.Close(), s.keys.Close())
	}

	h := &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	select {
	case err := <-served:
		return errors.Join(err, s.keys.Close())
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(h.Shutdown(grace), s.keys.Close())
}

// credentials are printed for trying out the program.
type credentials struct {
	APIKey   string `json:"api_key"`   // reads and writes notes
	ReadOnly string `json:"read_only"` // only reads
	User     string `json:"user"`      // logs in, and then manages API keys
	Password string `json:"password"`
}

// issue makes the two API keys.
func (c *credentials) issue(ctx context.Context, keys *apikey.Manager) error {
	for level, text := range map[usher.Level]*string{
		usher.LevelReadWrite: &c.APIKey,
		usher.LevelReadOnly:  &c.ReadOnly,
	} {
		key := apikey.Key{Owner: c.User, Name: "demo", Level: level}
		_, secret, err := keys.Create(ctx, apikey.Actor{System: true}, key)
		if err != nil {
			return err
		}
		*text = secret.Reveal()
	}
	return nil
}

func printJSON(out io.Writer, url string, c credentials) error {
	return json.NewEncoder(out).Encode(map[string]any{"url": url, "credentials": c})
}

// A trial is a command to paste into a shell.
type trial struct {
	about   string
	command string
	status  int    // of the last response
	shows   string // a part of what it prints
}

func trials(url string, c credentials) []trial {
	return []trial{
		{"Without a key: 401, in the shape of the service.",
			fmt.Sprintf(`curl -i %s/notes`, url), 401, `Www-Authenticate: `},
		{"With the demo key: the existing handler's JSON becomes the data of the shape.",
			fmt.Sprintf(`curl -i %s/notes -H 'X-API-Key: %s'`, url, c.APIKey), 200, `"data":[`},
		{"Make a note.",
			fmt.Sprintf(`curl -i %s/notes -H 'Authorization: Bearer %s' -d '{"text":"buy milk"}'`, url, c.APIKey), 201, `"text":"buy milk"`},
		{"A key that may only read: 403.",
			fmt.Sprintf(`curl -i %s/notes -H 'X-API-Key: %s' -d '{"text":"buy milk"}'`, url, c.ReadOnly), 403, `"status_code":403`},
		{"The same request twice: the note is made once, and the second response is a replay.",
			fmt.Sprintf(`for i in 1 2; do curl -i %s/notes -H 'X-API-Key: %s' -H 'Idempotency-Key: note-1' -d '{"text":"only once"}'; echo; done`, url, c.APIKey), 201, `Idempotency-Replayed: true`},
		{"The same Idempotency-Key with another text: 422.",
			fmt.Sprintf(`curl -i %s/notes -H 'X-API-Key: %s' -H 'Idempotency-Key: note-1' -d '{"text":"another"}'`, url, c.APIKey), 422, `"status_code":422`},
		{"Six writes: no more than five in any minute, so the last one gets 429, with Retry-After.",
			fmt.Sprintf(`for i in 1 2 3 4 5 6; do curl -i %s/notes -H 'X-API-Key: %s' -d '{"text":"again"}'; echo; done`, url, c.APIKey), 429, `Retry-After: `},
		{"Log in. The response has two tokens; sed copies them into the variables ACCESS and REFRESH.",
			fmt.Sprintf(`LOGIN=$(curl -isS %s/login -H 'Content-Type: application/json' -d '{"user":"%s","password":"%s"}'); echo "$LOGIN"; %s; %s`,
				url, c.User, c.Password, keep("ACCESS", "access_token"), keep("REFRESH", "refresh_token")), 200, `"access_token":"`},
		{"With the access token: the same notes.",
			fmt.Sprintf(`curl -i %s/notes -H "Authorization: Bearer $ACCESS"`, url), 200, `"text":"only once"`},
		{"Make an API key. It is shown this once.",
			fmt.Sprintf(`curl -i %s/api-keys -H "Authorization: Bearer $ACCESS" -H 'Content-Type: application/json' -d '{"name":"laptop"}'`, url), 201, `"api_key":"notes_live_`},
		{"List the keys: no secrets.",
			fmt.Sprintf(`curl -i %s/api-keys -H "Authorization: Bearer $ACCESS"`, url), 200, `"last_four":"`},
		{"Only people manage keys: an API key does not count here, 401.",
			fmt.Sprintf(`curl -i %s/api-keys -H 'X-API-Key: %s'`, url, c.APIKey), 401, `"status_code":401`},
		{"Refresh: a new pair of tokens. The same request again gets the same pair, for ten seconds.",
			fmt.Sprintf(`curl -i %s/refresh -H 'Content-Type: application/json' -d "{\"refresh_token\":\"$REFRESH\"}"`, url), 200, `"refresh_token":"`},
		{"Log out.",
			fmt.Sprintf(`curl -i %s/logout -H 'Content-Type: application/json' -d "{\"refresh_token\":\"$REFRESH\"}"`, url), 200, `"status_code":200`},
		{"After that the access token is refused at once: 401.",
			fmt.Sprintf(`curl -i %s/notes -H "Authorization: Bearer $ACCESS"`, url), 401, `error="invalid_token"`},
	}
}

// keep returns a command that copies a member of the response to the login.
func keep(variable, member string) string {
	return fmt.Sprintf(`%s=$(echo "$LOGIN" | sed -n 's/.*"%s":"\([^"]*\)".*/\1/p')`, variable, member)
}

func banner(out io.Writer, url string, c credentials) error {
	var text strings.Builder
	fmt.Fprintf(&text, "\nusher quickstart: a notes API on %s\n\nDemo key: %s\nUser:     %s, with the password %s\n", url, c.APIKey, c.User, c.Password)
	for _, t := range trials(url, c) {
		fmt.Fprintf(&text, "\n# %s\n%s\n", t.about, t.command)
	}
	text.WriteString("\nCtrl-C ends it.\n")
	_, err := io.WriteString(out, text.String())
	return err
}
