#!/bin/sh
# Starts a weir node as an EC2 instance when nobody has room, and terminates it
# when it is released. Needs the aws CLI with credentials, and jq.
#
#   weir node … --provision-command cmd/weir/hooks/aws.sh
#
# TEMPLATE is a launch template whose image has weir and jq, whose security group
# lets media and libp2p in, and whose role may terminate instances with the tag
# weir. It must say InstanceInitiatedShutdownBehavior=terminate: the instance then
# goes away when weir has ended and it shuts down. A virtual machine takes a while
# to come: let the policy's cooldown be two minutes or more.
set -eu

template=${TEMPLATE:-weir}

input=$(cat)
field() { printf %s "$input" | jq -er "$1"; }

case $(field .action) in
provision)
	region=$(printf %s "$input" | jq -r .region)
	request=$(field .request)
	join=$(field .join)
	data=$(mktemp)
	trap 'rm -f "$data"' EXIT
	cat >"$data" <<END
#!/bin/sh
address=\$(hostname -I | cut -d' ' -f1)
WEIR_JOIN='$join' WEIR_REGION='$(printf %s "$region" | tr -cd 'A-Za-z0-9_.-')' weir node --insecure-open \\
	--http "\$address:8080" --media-port 8082 --listen "/ip4/\$address/udp/4001/quic-v1" \\
	--data-dir /var/lib/weir --release-command true
shutdown -h now
END
	# The request is the client token: tried again, it is the same instance.
	set -- ec2 run-instances --launch-template "LaunchTemplateName=$template" --count 1 \
		--client-token "$request" --user-data "file://$data" \
		--tag-specifications "ResourceType=instance,Tags=[{Key=weir,Value=$request}]" \
		--query 'Instances[0].InstanceId' --output text
	# Regions of the network are named as Amazon's; an empty one is the default.
	[ -z "$region" ] || set -- "$@" --region "$region"
	aws "$@"
	;;
release)
	# The instance shuts itself down, see above. This is for a hook that runs
	# elsewhere and finds it by a tag with its peer ID.
	ids=$(aws ec2 describe-instances --filters "Name=tag:weir-peer,Values=$(field .peer_id)" \
		--query 'Reservations[].Instances[].InstanceId' --output text)
	[ -z "$ids" ] || aws ec2 terminate-instances --instance-ids $ids
	;;
*)
	echo "unknown action" >&2
	exit 1
	;;
esac
