package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outpost.run/outpost/client"
)

// connection is where a command finds its server: by flags, else by the environment, else beside it by the data
// directory.
type connection struct {
	url, token, namespace, dataDir string
}

func (c *connection) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&c.url, "url", "", "the server's address (OUTPOST_URL; else the server of --data-dir)")
	f.StringVar(&c.token, "token", "", "a token, or an API key as name$secret (OUTPOST_TOKEN; else the one in --data-dir)")
	f.StringVar(&c.namespace, "namespace", "", `the namespace to work in (OUTPOST_NAMESPACE; else "default")`)
	f.StringVar(&c.dataDir, "data-dir", "", "data directory of a server on this host (OUTPOST_DATA_DIR; else "+client.DefaultDataDir+")")
}

// patience is how long a command waits out the rate limit: it is a minute's.
const patience = time.Minute

// open makes the client. The token of a data directory goes to the server of that directory and to no other address.
func (c connection) open(options ...client.Option) (*client.Client, error) {
	dir := cmp.Or(c.dataDir, os.Getenv("OUTPOST_DATA_DIR"), client.DefaultDataDir)
	address := cmp.Or(c.url, os.Getenv("OUTPOST_URL"))
	token := cmp.Or(c.token, os.Getenv("OUTPOST_TOKEN"))
	local, localErr := client.FindLocal(dir)
	if address == "" {
		if localErr != nil {
			return nil, noServer(dir, localErr)
		}
		address = local.URL
	}
	if token == "" && localErr == nil && strings.TrimSuffix(address, "/") == local.URL {
		var err error
		if token, err = client.LocalToken(dir); err != nil {
			return nil, fmt.Errorf("the credential of the server on %s can't be read (%w): set OUTPOST_TOKEN", dir, err)
		}
	}
	options = append(options, client.WithPatience(patience), client.WithNamespace(cmp.Or(c.namespace, os.Getenv("OUTPOST_NAMESPACE"), client.DefaultNamespace)))
	if name, secret, isKey := strings.Cut(token, "$"); isKey {
		options = append(options, client.WithAPIKey(name, secret))
	}
	made, err := client.New(address, token, options...)
	if err == nil && token == "" {
		return nil, fmt.Errorf("no credential for %s: set OUTPOST_TOKEN or --token", address)
	}
	return made, err
}

func noServer(dir string, err error) error {
	if !errors.Is(err, client.ErrNoLocal) {
		return err
	}
	return fmt.Errorf("%w (%s): start one by \"outpost serve\", or say where one is by OUTPOST_URL and OUTPOST_TOKEN", err, dir)
}
