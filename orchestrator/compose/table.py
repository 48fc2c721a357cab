"""The one table of Compose keys: what each may hold, and what gorae makes of it. Everything else is generated or
tested from here: validation, `gorae check`, docs/compose.md, specs/compose.schema.json.

A section is a place, a line a key there: its name, what it holds, and the verdict. `*` is any name, `[]` an entry of a
list. The keys are those of the Specification's schema; one that is not here does not exist in Compose and is an error,
but for `x-…`, which is free and silent (11-extension.md), unless it begins `x-gorae`: those are ours. A section that is
`closed` takes no `x-…`.

holds     text int number bool null map list, joined by |; text(a b) takes only these words; a ! after bool, int or
          count takes no quotes around it. With meaning:
              count                       a whole number, 0 or more
              duration size limit cpus    1m30s · 64m, or bytes · the same, or -1 for none · 0.5
              mode                        permission bits, in octal
              scalar option               text, a number or a truth, taken as text · no truth
              texts  list:text  set:text  one text or a list of them · a list · one that says nothing twice
              entries options             NAME=VALUE, as a mapping or a list · as a mapping
              variables ssh               entries whose names may have no value · entries, told as a list
              words hosts                 a command line or its words · names and addresses
          "needs a b" after it: keys that must be there.
verdict   nothing: honoured. ignored, warned, refused: with the reason, which a person reads after "cannot use KEY: ".
          differs: honoured, in another way than docker compose does; with what is other.
          "refused but a b: …" honours these values (of `*`: names) and refuses the rest. Children go with their parent,
          but for differs.
          A line that begins with spaces goes on with the one above.
          @later: gorae does not do it yet.    @swarm: it is for clusters of machines.
"""

from __future__ import annotations

TEXT = """
# 03-compose-file.md, 04-version-and-name.md, 14-include.md, 15-profiles.md
[]
name                    text
version                 text                                    warned it is obsolete and has no effect
include                 null|list
services                map
networks                map
volumes                 map
configs                 map                                     refused @later
secrets                 map
models                  map                                     refused gorae runs no language models

[include]
[]                      text|map

[include.[]] closed
path                    texts
env_file                texts
project_directory       text

# 05-services.md
[services]
*                       map

[services.*]
annotations             entries                                 refused @later
attach                  bool                                    warned gorae logs shows every service
blkio_config            map                                     refused @later
build                   text|map                                differs buildah builds it, with your rights, when it
                                                                is installed; RUN works in the network of the host
cap_add                 list:text                               refused @later
cap_drop                list:text                               refused @later
cgroup                  text(host private)                      refused @later
cgroup_parent           text                                    refused @later
command                 words
configs                 list                                    refused @later
container_name          text                            differs it is a name that other containers look up; commands of
                                                        gorae say the service's
cpu_count               int                                     warned it is for Windows; use `cpus`
cpu_percent             number                                  warned it is for Windows; use `cpus`
cpu_period              int                                     refused @later
cpu_quota               int                                     refused @later
cpu_rt_period           int                                     refused @later
cpu_rt_runtime          int                                     refused @later
cpu_shares              int                                     refused @later
cpus                    cpus
cpuset                  text                                    refused @later
credential_spec         map                                     refused it is for Windows
depends_on              map|set                         differs the order holds when the host boots, too, and all
                                                        replicas of the other service are waited for
deploy                  map|null
develop                 map|null                                warned gorae does not watch source files
device_cgroup_rules     set:text                                refused @later
devices                 list                                    refused @later
dns                     texts
dns_opt                 list:text
dns_search              texts
domainname              text
entrypoint              words
env_file                text|list
environment             variables
expose                  list                            differs it opens nothing: containers that share a network reach
                                                        each other at every port
extends                 text|map
external_links          set:text                                refused gorae has no containers but those of stacks
extra_hosts             hosts                           differs host-gateway opens the host's own ports, which are
                                                        closed otherwise, to the containers of this service
gpus                    text(all)|list                          refused @later
group_add               set                                     refused @later
healthcheck             map                             differs a container that turns unhealthy is restarted, unless
                                                        `restart` is no, or as x-gorae-on-unhealthy says
hostname                text
image                   text
init                    bool
ipc                     text                                    refused @later
isolation               text                                    warned it is for Windows
label_file              texts
labels                  entries
links                   list:text
logging                 map                             differs json-file and local are the same: what the logs of a
                                                                container may take is max-size times max-file
mac_address             text
mem_limit               limit
mem_reservation         limit                           differs it sets no limit; what all stacks reserve together must
                                                        fit the host, or up refuses
mem_swappiness          limit                                   refused @later
memswap_limit           limit                                   refused @later
models                  map|set                                 refused gorae runs no language models
network_mode            text                            differs but none bridge default: with host, ports below 1024
                                                        stay closed to it, for the host takes its root for nobody; with
                                                        service or container, it is restarted when that one's network is
                                                        made anew
networks                map|set
oom_kill_disable        bool                                    refused @later
oom_score_adj           int                                     refused @later
pid                     text|null                               refused @later
pids_limit              int
platform                text
ports                   list                            differs replicas share a host port; those that are ready answer,
                                                        in turn
post_start              list                            differs it runs whenever a container has started, also after a
                                                        crash; until then the container is not ready, and if it fails
                                                        the container is started anew
pre_start               list                            differs it runs in the service's own container, of the same
                                                        image, before the service's command
pre_stop                list                            differs together they have stop_grace_period; the container has
                                                        left its ports before, and its connections have ended
privileged              bool                                    refused @later
profiles                list:text
provider                map needs type                          refused gorae calls no outside providers
pull_policy             text
pull_refresh_after      text                                    refused write pull_policy: every_12h
read_only               bool
restart                 text                            differs but no on-failure unless-stopped:
                                                        a service stopped with gorae stop stays stopped at boot
runtime                 text                                    refused gorae runs containers with crun
scale                   int
secrets                 list                                    refused @later
security_opt            set:text                                refused @later
shm_size                size                                    refused @later
stdin_open              bool
stop_grace_period       duration
stop_signal             text
storage_opt             options                                 refused @later
sysctls                 entries                                 refused @later
tmpfs                   texts
tty                     bool
ulimits                 map                                     refused @later
use_api_socket          bool!                                   refused gorae hands its socket to no container
user                    text
userns_mode             text                                    refused @later
uts                     text                                    refused @later
volumes                 list
volumes_from            set:text
working_dir             text
x-gorae-drain           duration
x-gorae-healthcheck     map
x-gorae-on-unhealthy    text(none recreate restart stop)

[services.*.blkio_config] closed
device_read_bps         list
device_read_iops        list
device_write_bps        list
device_write_iops       list
weight                  count
weight_device           list

[services.*.blkio_config.device_read_bps]
[]                      map

[services.*.blkio_config.device_read_bps.[]] closed
path                    text
rate                    size

[services.*.blkio_config.device_read_iops]
[]                      map

[services.*.blkio_config.device_read_iops.[]] closed
path                    text
rate                    size

[services.*.blkio_config.device_write_bps]
[]                      map

[services.*.blkio_config.device_write_bps.[]] closed
path                    text
rate                    size

[services.*.blkio_config.device_write_iops]
[]                      map

[services.*.blkio_config.device_write_iops.[]] closed
path                    text
rate                    size

[services.*.blkio_config.weight_device]
[]                      map

[services.*.blkio_config.weight_device.[]] closed
path                    text
weight                  count!

[services.*.configs]
[]                      text|map

[services.*.configs.[]]
source                  text
target                  text
uid                     text
gid                     text
mode                    mode

[services.*.credential_spec]
config                  text
file                    text
registry                text

[services.*.depends_on]
[]                      text
*                       map needs condition

[services.*.depends_on.*]
condition               text(service_started service_healthy service_completed_successfully)
required                bool
restart                 bool

[services.*.devices]
[]                      text|map needs source

[services.*.devices.[]]
source                  text
target                  text
permissions             text

[services.*.env_file]
[]                      text|map needs path

[services.*.env_file.[]] closed
path                    text
format                  text
required                bool

[services.*.expose]
[]                      text|int

[services.*.extends] closed
service                 text
file                    text

[services.*.gpus]
[]                      map

[services.*.gpus.[]]
capabilities            set:text
count                   text|int
device_ids              set:text
driver                  text
options                 entries

[services.*.group_add]
[]                      text|int

[services.*.healthcheck]
disable                 bool
interval                duration
retries                 count
start_interval          duration
start_period            duration
test                    text|list
timeout                 duration

[services.*.healthcheck.test]
[]                      text

[services.*.logging]
driver                  text                            warned but json-file local none: gorae keeps logs itself, and
                                                        has no such driver
options                 options

[services.*.logging.options]
*                       option|null                             warned but max-size max-file: gorae has no such option
                                                                of logs

[services.*.models]
[]                      text
*                       map|null

[services.*.models.*]
endpoint_var            text
model_var               text

[services.*.networks]
[]                      text
*                       map|null

[services.*.networks.*]
aliases                 list:text
driver_opts             options                                 warned a container has one link, whatever its networks
gw_priority             int!                                    ignored a container has one link, whatever its networks
interface_name          text                                    refused a container has one link, eth0
ipv4_address            text                            differs a container has one IPv4 address, whatever its
                                                        networks: this one
ipv6_address            text                            differs a container has one IPv6 address, whatever its
                                                        networks: this one
link_local_ips          list:text                               refused a container has one address
mac_address             text                            differs a container has one link, whatever its networks
priority                int!                                    ignored a container has one link, whatever its networks

[services.*.ports]
[]                      text|int|map

[services.*.ports.[]]
app_protocol            text                                    ignored a word for people
host_ip                 text
mode                    text                                    refused but ingress host: Compose has no such mode
name                    text                                    ignored a name for people
protocol                text                                    refused but tcp udp: gorae publishes tcp and udp
published               text|int
target                  count

[services.*.post_start]
[]                      map needs command

[services.*.post_start.[]]
command                 words
environment             variables
privileged              bool
user                    text
working_dir             text

[services.*.pre_start]
[]                      map

[services.*.pre_start.[]]
command                 words
environment             variables
image                   text
per_replica             bool
privileged              bool
user                    text
working_dir             text

[services.*.pre_stop]
[]                      map needs command

[services.*.pre_stop.[]]
command                 words
environment             variables
privileged              bool
user                    text
working_dir             text

[services.*.provider]
options                 map
type                    text

[services.*.provider.options]
*                       text|int|number|bool|list

[services.*.provider.options.*]
[]                      text|int|number|bool

[services.*.secrets]
[]                      text|map

[services.*.secrets.[]]
source                  text
target                  text
uid                     text
gid                     text
mode                    mode

[services.*.ulimits]
*                       int|map needs soft hard

[services.*.ulimits.*]
hard                    int
soft                    int

[services.*.volumes]
[]                      text|map needs type

[services.*.volumes.[]]
bind                    map
consistency             text                                    ignored every mount is consistent on Linux
image                   map                                     refused @later
read_only               bool
source                  text
target                  text
tmpfs                   map
type                    text(bind cluster image npipe tmpfs volume)    refused but bind tmpfs volume: @later
volume                  map

[services.*.volumes.[].bind]
create_host_path        bool
propagation             text                            differs but rprivate private rslave slave:
                                                        containers mount nothing, so that shared is as slave
recursive               text(disabled enabled readonly writable)    refused @later
selinux                 text(z Z)                               ignored gorae sets no SELinux labels

[services.*.volumes.[].image]
subpath                 text

[services.*.volumes.[].tmpfs]
mode                    count!
size                    size

[services.*.volumes.[].volume]
labels                  entries
nocopy                  bool
subpath                 text

[services.*.x-gorae-healthcheck]
http                    map needs port
interval                duration
retries                 count
start_interval          duration
start_period            duration
tcp                     map needs port
timeout                 duration

[services.*.x-gorae-healthcheck.http]
path                    text
port                    int

[services.*.x-gorae-healthcheck.tcp]
port                    int

# build.md
[services.*.build]
additional_contexts     entries
args                    variables
cache_from              list:text                               warned buildah has a cache of its own on this host
cache_to                list:text                               warned buildah has a cache of its own on this host
context                 text
dockerfile              text
dockerfile_inline       text
entitlements            list:text                               warned buildah asks for none
extra_hosts             hosts
isolation               text                                    warned it is for Windows; see BUILDAH_ISOLATION
labels                  entries
network                 text                                    refused but host none: buildah knows no other here
no_cache                bool
no_cache_filter         texts                                   warned gorae build --no-cache builds all anew
platforms               list:text                               differs one image: for `platform`, else the first
privileged              bool                                    refused but false: builds get your rights, no others
provenance              text|bool                               ignored images here carry no attestations
pull                    bool
sbom                    text|bool                               ignored images here carry no attestations
secrets                 list
shm_size                size
ssh                     ssh
tags                    list:text
target                  text
ulimits                 map

[services.*.build.secrets]
[]                      text|map

[services.*.build.secrets.[]]
source                  text
target                  text
uid                     text                                    warned RUN --mount says it for buildah
gid                     text                                    warned RUN --mount says it for buildah
mode                    mode                                    warned RUN --mount says it for buildah

[services.*.build.ulimits]
*                       int|map needs soft hard

[services.*.build.ulimits.*]
hard                    int
soft                    int

# deploy.md
[services.*.deploy]
endpoint_mode           text                                    warned @swarm
labels                  entries                                 warned they are shown nowhere; use `labels`
mode                    text                                    refused but replicated global replicated-job
                                                                global-job: Compose has no such mode
placement               map                                     warned @swarm
replicas                int
resources               map
restart_policy          map
rollback_config         map
update_config           map                             differs without failure_action a failed update is rolled back;
                                                        without order the new container starts first where it can

[services.*.deploy.placement]
constraints             list:text
max_replicas_per_node   count
preferences             list

[services.*.deploy.placement.preferences]
[]                      map

[services.*.deploy.placement.preferences.[]]
spread                  text

[services.*.deploy.resources]
limits                  map
reservations            map

[services.*.deploy.resources.limits]
cpus                    cpus
memory                  size
pids                    int

[services.*.deploy.resources.reservations]
cpus                    cpus                            differs what all stacks reserve together must fit the host, or
                                                        up refuses
devices                 list                                    refused @later
generic_resources       list                                    refused @swarm
memory                  size                            differs what all stacks reserve together must fit the host, or
                                                        up refuses

[services.*.deploy.resources.reservations.devices]
[]                      map needs capabilities

[services.*.deploy.resources.reservations.devices.[]]
capabilities            set:text
count                   text|int
device_ids              set:text
driver                  text
options                 entries

[services.*.deploy.resources.reservations.generic_resources]
[]                      map

[services.*.deploy.resources.reservations.generic_resources.[]]
discrete_resource_spec  map

[services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec]
kind                    text
value                   int

[services.*.deploy.restart_policy]
condition               text                            refused but none on-failure any: Compose has no such condition
delay                   duration
max_attempts            count
window                  duration

[services.*.deploy.rollback_config]
delay                   duration
failure_action          text                            refused but continue pause: a way back has none behind it
max_failure_ratio       number
monitor                 duration
order                   text(start-first stop-first)
parallelism             count

[services.*.deploy.update_config]
delay                   duration
failure_action          text                            refused but continue pause rollback: Compose has no such action
max_failure_ratio       number
monitor                 duration
order                   text(start-first stop-first)
parallelism             count

# develop.md
[services.*.develop]
watch                   list

[services.*.develop.watch]
[]                      map needs path action

[services.*.develop.watch.[]]
action                  text(rebuild restart sync sync+exec sync+restart)
exec                    map needs command
ignore                  texts
include                 texts
initial_sync            bool!
path                    text
target                  text
x-initialSync           bool

[services.*.develop.watch.[].exec]
command                 words
environment             variables
privileged              bool
user                    text
working_dir             text

# 06-networks.md
[networks]
*                       map|null

[networks.*]
attachable              bool                                    ignored everything gorae runs is in a stack
driver                  text                                    refused but bridge default host none: gorae routes
                                                                between containers itself, whatever the driver; leave it
                                                                out
driver_opts             options
enable_ipv4             bool                                    refused but true: containers have IPv4 and nothing else
enable_ipv6             bool
external                bool|map                                differs nobody must have made it: stacks that name the
                                                                same network share it
internal                bool
ipam                    map
labels                  entries                                 ignored gorae shows no networks
name                    text

[networks.*.external]
name                    text

[networks.*.driver_opts]
*                       option|null                             warned but com.docker.network.driver.mtu: gorae has no
                                                                bridges to set up

[networks.*.ipam]
config                  list
driver                  text                                    refused but default: gorae gives out the addresses
                                                                itself
options                 map                                     warned they are for other programs

[networks.*.ipam.options]
*                       text

[networks.*.ipam.config]
[]                      map

[networks.*.ipam.config.[]]
aux_addresses           map
gateway                 text                            differs it is not given out; the way out is 169.254.1.1,
                                                        whatever the network
ip_range                text
subnet                  text

[networks.*.ipam.config.[].aux_addresses]
*                       text

# 07-volumes.md
[volumes]
*                       map|null

[volumes.*]
driver                  text                                    refused but local: @later
driver_opts             options                         differs a folder of the host, or memory, is not filled with what
                                                        the image has there
external                bool|map
labels                  entries
name                    text

[volumes.*.external]
name                    text

# 08-configs.md, 09-secrets.md
[configs]
*                       map

[configs.*]
content                 text
environment             text
external                bool|map
file                    text
labels                  entries
name                    text
template_driver         text

[configs.*.external]
name                    text

[secrets]
*                       map

[secrets.*]
driver                  text                                    warned @swarm
driver_opts             options                                 warned @swarm
environment             text
external                bool|map
file                    text
labels                  entries                                 ignored secrets are listed nowhere
name                    text
template_driver         text                                    warned @swarm

[secrets.*.external]
name                    text

[models]
*                       map needs model

[models.*]
context_size            int!
model                   text
name                    text
runtime_flags           list:text
"""
